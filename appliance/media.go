// media.go: which inputs of a version take files, as the configuration has it.
package appliance

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel"
)

// readVersion is [savedmodel.Read] with the model's tags and its media.
func readVersion(m config.Model, dir string) (*savedmodel.Info, error) {
	info, err := savedmodel.Read(dir, m.Tags)
	if err == nil {
		bindMedia(info, m.Media)
	}
	return info, err
}

// bindMedia lets the version's inputs take files where the configuration says how they arrive. Where an input is another one than the
// configuration thinks, it takes none and the version has a warning: it answers tensors all the same.
func bindMedia(info *savedmodel.Info, inputs config.MediaInputs) {
	for _, alias := range slices.Sorted(maps.Keys(inputs)) {
		spec, found := inputs[alias].Spec(), false
		for _, key := range slices.Sorted(maps.Keys(info.Signatures)) {
			sig := info.Signatures[key]
			i := sig.Input(alias)
			if i < 0 {
				continue
			}
			found = true
			in := &sig.Inputs[i]
			var err error
			if in.Media, err = spec.Bind(in.DType, in.Shape, in.UnknownRank); err != nil {
				info.Warnings = append(info.Warnings, fmt.Sprintf("input %q of signature %q takes no files, tensors only: models[].media does not fit it: %v", alias, key, err))
			}
		}
		if !found {
			info.Warnings = append(info.Warnings, fmt.Sprintf("models[].media says how input %q arrives, which no signature has; the inputs are %s", alias, inputNames(info)))
		}
	}
}

// inputNames are those of all signatures, once each.
func inputNames(info *savedmodel.Info) string {
	names := make(map[string]bool)
	for _, sig := range info.Signatures {
		for i := range sig.Inputs {
			names[fmt.Sprintf("%q", sig.Inputs[i].Alias)] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}
