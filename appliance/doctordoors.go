// doctordoors.go: what `inferd doctor` says about who is let in.
package appliance

import (
	"errors"
	"io/fs"
	"time"

	"github.com/inferd/inferd/appliance/access"
)

// tokens looks at the tokens file as a running inferd would, as far as this user may.
func (d *doctor) tokens() {
	path := d.cfg.Access.TokensFile
	if path == "" {
		if w := d.cfg.OpenWarning(); w != "" {
			d.say(FindingWarning, "access", "%s", w)
		}
		return
	}
	tokens, err := access.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.say(FindingWarning, "access.tokens_file", "%s is not there, so nobody is let in at the ports; `inferd token add` makes it", path)
		return
	case err != nil:
		d.say(FindingWrong, "access.tokens_file", "%v", err)
		return
	}
	over := 0
	for i := range tokens {
		if tokens[i].Expired(time.Now()) {
			over++
		}
	}
	switch w := d.cfg.OpenWarning(); {
	case len(tokens) == over:
		d.say(FindingWarning, "access.tokens_file", "%s has %d tokens, all of which have expired, so nobody is let in at the ports; `inferd token add` makes one", path, len(tokens))
	case w != "":
		d.say(FindingWarning, "access.tokens_file", "%s has %d tokens; %s", path, len(tokens), w)
	default:
		d.say(FindingOK, "access.tokens_file", "%s has %d tokens, of which %d have expired", path, len(tokens), over)
	}
}
