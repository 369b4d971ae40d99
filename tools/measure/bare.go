// bare.go: TensorFlow without a server: a model of this process.
package measure

import (
	"os"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tfrt"
)

// LoadBare loads the SavedModel of dir into this process, with the runtime that LIBTENSORFLOW names, and returns its default signature with it.
func LoadBare(dir string, o tfrt.Options) (*tfrt.Model, *inference.Signature, error) {
	found, err := tfrt.Find(os.Getenv("LIBTENSORFLOW"))
	if err != nil {
		return nil, nil, err
	}
	rt, err := tfrt.Open(found.Path)
	if err != nil {
		return nil, nil, err
	}
	info, err := savedmodel.Read(dir, []string{"serve"})
	if err != nil {
		return nil, nil, err
	}
	m, err := rt.Load(dir, o)
	if err != nil {
		return nil, nil, err
	}
	return m, info.Signatures[inference.DefaultSignature], nil
}
