// pools.go: TensorFlow's own threads, made on a thread of ordinary priority.
package tfrt

import (
	"fmt"
	"runtime"

	tf "github.com/tensorflow/tensorflow/tensorflow/go"
)

// makePools has TensorFlow make the thread pools of the process, which it does with the first session, whatever that is for. A thread inherits
// its maker's priority for good, and models whose graphs use the pools would compute on them at the priority of their load.
func makePools(config []byte) error { return makePoolsBy(tf.NewSession, config) }

func makePoolsBy(newSession func(*tf.Graph, *tf.SessionOptions) (*tf.Session, error), config []byte) error {
	made := make(chan error, 1)
	go func() { // on another thread than the caller's, which is locked; the first graph too, for it makes a thread that stays
		g := tf.NewGraph()
		s, err := newSession(g, &tf.SessionOptions{Config: config})
		if err == nil {
			err = s.Close()
		}
		// The binding holds nothing over the call that makes the session, and a finalizer frees the graph: a collection in those 40 ms would
		// leave TensorFlow waiting for a lock in freed memory for ever.
		runtime.KeepAlive(g)
		made <- err
	}()
	if err := <-made; err != nil {
		return fmt.Errorf("make TensorFlow's threads: %w", err)
	}
	return nil
}
