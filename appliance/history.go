// history.go: what happened to a model, for REST.
package appliance

import "github.com/inferd/inferd/appliance/api/rest"

// history is what rest.Options.History asks for.
func (a *Appliance) history(model string, limit int) ([]rest.Event, error) {
	events, err := a.updater.History(model, limit)
	if err != nil {
		return nil, err
	}
	out := make([]rest.Event, len(events))
	for i, e := range events {
		out[i] = rest.Event(e)
	}
	return out, nil
}
