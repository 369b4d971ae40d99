// pools_test.go: making TensorFlow's pools while Go collects garbage.
package tfrt

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"weak"

	tf "github.com/tensorflow/tensorflow/tensorflow/go"
)

// Nothing but makePools holds the graph of the session that it makes. Freed by a collection in between, its lock is memory of anything,
// and TensorFlow waits for it for ever.
func TestPoolsHoldTheirGraph(t *testing.T) {
	openRuntime(t)
	config, err := Options{}.config()
	if err != nil {
		t.Fatal(err)
	}
	err = makePoolsBy(func(g *tf.Graph, _ *tf.SessionOptions) (*tf.Session, error) {
		held := weak.Make(g) // nil as soon as the collector may finalize it; g itself is not used any more, as in the binding
		for range 3 {
			runtime.GC()
		}
		if held.Value() == nil {
			t.Error("the graph was collected while its session was made")
		}
		return nil, errors.New("that is all")
	}, config)
	if err == nil || !strings.Contains(err.Error(), "that is all") {
		t.Fatal(err)
	}
	if err := makePools(config); err != nil {
		t.Fatal(err)
	}
}
