// empty.go: base paths that turn up empty, and folders of models that are gone: what served goes on for a grace time.
package updater

import (
	"fmt"
	"time"
)

// sawEmpty keeps the time since when the base path has held no version. A base path that is missing, or cannot be read, says nothing
// about versions: the time begins anew with the next look that can.
func (m *model) sawEmpty(found look, started time.Time) {
	switch {
	case found.Base != baseThere || len(found.Folders) > 0:
		m.emptySince = time.Time{}
	case m.emptySince.IsZero():
		m.emptySince = started
	}
}

// spared reports whether the base path is empty and the grace time not over.
func (m *model) spared(o *Options) bool {
	return m.base == baseThere && !m.emptySince.IsZero() && m.lookedAt.Sub(m.emptySince) < o.EmptyGrace
}

// empty reports whether the base path has been empty for the grace time, and no operator wants a version all the same.
func (m *model) empty(o *Options) bool {
	return m.base == baseThere && !m.emptySince.IsZero() && !m.spared(o) && m.rec.Pin == nil && m.rec.Back == nil
}

// graceText says, while versions go on being served from nothing, until when they are; empty when that is not so.
func (m *model) graceText(o *Options) string {
	if len(m.live()) == 0 || m.gone {
		return ""
	}
	switch {
	case !m.leaving.IsZero():
		return fmt.Sprintf("%s; it is unloaded at %s unless the folder comes back", m.servingText(), clock(m.leaving))
	case m.spared(o) && m.rec.Pin == nil && m.rec.Back == nil:
		return fmt.Sprintf("base path %s is empty since %s; %s; it is unloaded at %s unless a version comes back",
			m.BasePath, clock(m.emptySince), m.servingText(), clock(m.emptySince.Add(o.EmptyGrace)))
	}
	return ""
}

func clock(t time.Time) string { return t.Format("15:04:05") }
