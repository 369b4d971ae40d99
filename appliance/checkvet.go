// checkvet.go: what `inferd check` says about that which vet.go holds against a version.
package appliance

import (
	"fmt"
	"strings"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel"
)

// vet puts into f why the version would not be loaded, and what reaches out of it in any case.
func (c *checker) vet(dir string, m config.Model, info *savedmodel.Info, f *Finding) {
	if err := vetVersion(m, abs(dir), info); err != nil {
		f.Severity, f.Message = FindingWrong, f.Message+", but "+err.Error()
		return
	}
	var outer []string
	for _, o := range info.Outer {
		outer = append(outer, o.String())
	}
	if len(outer) > 0 {
		f.Message += fmt.Sprintf("; it reaches out of the model, which is allowed: %s", strings.Join(outer, "; "))
	}
}
