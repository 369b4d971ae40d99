// validate.go: what a whole version must fulfil beside its signatures before it is loaded.
package updater

import (
	"errors"

	"github.com/inferd/inferd/inference/savedmodel"
)

// vet asks Options.Vet about what has been found good so far.
func (c *checked) vet(o *Options, m Model, dir string) {
	if c.broken != nil || c.refused != nil {
		return
	}
	err := o.Vet(m, dir, c.info)
	if errors.Is(err, savedmodel.ErrIncomplete) {
		c.broken = err
	} else {
		c.refused = err
	}
}
