// showconfig.go: a configuration as operators are shown it.
package appliance

import (
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
)

// showConfig is the configuration in force.
func (a *Appliance) showConfig() control.Config { return ShowConfig(a.current.Load()) }

// ShowConfig is cfg with where each value came from.
func ShowConfig(cfg *config.Config) control.Config {
	shown := control.Config{Files: []string{}, Text: string(cfg.Annotated())}
	if cfg.File() != "" {
		shown.Files = append([]string{cfg.File()}, cfg.Fragments()...)
	}
	for _, s := range cfg.Show() {
		shown.Keys = append(shown.Keys, control.Setting(s))
	}
	return shown
}
