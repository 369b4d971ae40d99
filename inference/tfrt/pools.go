// pools.go: TensorFlow's own threads, made on a thread of ordinary priority.
package tfrt

import (
	"fmt"

	tf "github.com/tensorflow/tensorflow/tensorflow/go"
)

// makePools has TensorFlow make the thread pools of the process, which it does with the first session, whatever that is for. A thread inherits
// its maker's priority for good, and models whose graphs use the pools would compute on them at the priority of their load.
func makePools(config []byte) error {
	made := make(chan error, 1)
	go func() { // on another thread than the caller's, which is locked; the first graph too, for it makes a thread that stays
		s, err := tf.NewSession(tf.NewGraph(), &tf.SessionOptions{Config: config})
		if err == nil {
			err = s.Close()
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return fmt.Errorf("make TensorFlow's threads: %w", err)
	}
	return nil
}
