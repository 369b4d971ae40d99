// oip.go: the Open Inference Protocol's parts: what both transports share, and the handler on the HTTP port.
package appliance

import (
	"net/http"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/oip/oiprest"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/config"
)

func (a *Appliance) newOIP() *oip.Service {
	return oip.New(a.service, oip.Options{
		Name: a.cfg.OIP.ServerName, Version: a.opts.Version, Statistics: a.metrics.stats, Repository: a.updater,
		Live:  func() bool { return a.health.Report().Live },
		Ready: func() bool { return a.health.Report().Ready && !a.isDraining() },
		Serving: func(model string) (serving, known bool) {
			serving, known = a.serving(model)
			return serving && !a.isDraining(), known
		},
		Callers: func() oip.Callers {
			switch a.current.Load().OIP.Repository {
			case config.LocalCallers:
				return oip.LocalCallers
			case config.AnyCallers:
				return oip.AnyCallers
			}
			return oip.NoCallers
		},
	})
}

func (a *Appliance) oipHandler(door rest.Options) http.Handler {
	return oiprest.New(a.service, a.oip, oiprest.Options{Door: door, StrictJSON: door.StrictJSON, Operators: &a.opers, Log: a.log})
}
