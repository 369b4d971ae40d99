// stages.go: starts the parts bottom-up and stops them top-down.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// A stage is up once it calls ready, and is stopped only after every later stage has returned, so they may use it freely until
// their own end.
type stage struct {
	name string
	run  func(ctx context.Context, ready func()) error
}

// runStages runs the stages in order until ctx ends or one of them returns; then the later ones stop before the earlier ones.
// Every stage that was started has returned when it returns.
func runStages(ctx context.Context, stages []stage) error {
	if len(stages) == 0 {
		<-ctx.Done()
		return nil
	}
	s, later := stages[0], stages[1:]
	// A stage is not stopped by ctx itself: it must outlive the stages that stand on it.
	own, stopOwn := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOwn()
	rest, stopRest := context.WithCancel(ctx)
	defer stopRest()

	up, exit := make(chan struct{}), make(chan error, 1)
	go func() {
		defer stopRest() // a dead stage takes the later ones with it
		exit <- s.run(own, sync.OnceFunc(func() { close(up) }))
	}()

	var err error
	select {
	case <-up:
		err = runStages(rest, later)
	case <-rest.Done():
	}
	stopOwn()
	if e := <-exit; e != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w", s.name, e))
	}
	return err
}
