// vet.go: what is held against a version before it is loaded, beside its signatures: what its links and its graph reach, and who vouches for it.
package appliance

import (
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/updater"
)

// vet is [vetVersion] as the updater calls it.
func vet(m updater.Model, dir string, info *savedmodel.Info) error {
	return vetVersion(settings(updater.Candidate{Model: m}), dir, info)
}

// vetVersion says why a version must not be loaded under these settings; nil when it may. It reads the version's files, all of them
// where it has a manifest.
func vetVersion(m config.Model, dir string, info *savedmodel.Info) error {
	if err := savedmodel.CheckPaths(dir); err != nil {
		return err
	}
	trust := savedmodel.Trust{Require: m.RequireSignature}
	for _, s := range m.SignatureKeys {
		key, err := config.ParseKey(s)
		if err != nil {
			return err
		}
		trust.Keys = append(trust.Keys, key)
	}
	signed, err := savedmodel.CheckManifest(dir, trust)
	if err != nil {
		return err
	}
	if m.DenyOps && !signed {
		return savedmodel.DenyOps(info, m.AllowOps)
	}
	return nil
}
