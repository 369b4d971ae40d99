// steps.go: the checks.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// slack in MiB is what the driver's own count may wander by.
const slack = 64

// weights of the big model in MiB.
func (c *checks) weights() int {
	if c.dry {
		return 16
	}
	return 512
}

// both publishes version 1 of the small and the big model and returns their workers.
func (c *checks) both(ctx context.Context, s *server) (small, big *control.Worker, err error) {
	if err = s.publish("two_layer", 1, modeltest.TwoLayer()); err == nil {
		err = s.publish("big", 1, modeltest.BigVariables(c.weights(), 1))
	}
	if err == nil {
		small, err = s.live(ctx, "two_layer", 1)
	}
	if err == nil {
		big, err = s.live(ctx, "big", 1)
	}
	if err != nil {
		return nil, nil, err
	}
	c.onGPU(small.Device != "" && big.Device != "", "both models compute on the GPU (devices %q and %q)", small.Device, big.Device)
	c.answer(ctx, s, 1)
	if !c.dry && (small.Device == "" || big.Device == "") {
		return nil, nil, fmt.Errorf("the rest would be about the CPU; the log ends with\n%s", tail(s.logged()))
	}
	return small, big, nil
}

// answer checks both models' answers; the big one's tells its version.
func (c *checks) answer(ctx context.Context, s *server, version float32) {
	err := errors.Join(s.twoLayer(ctx), s.one(ctx, "big", 2, 2+version))
	c.check(err == nil, "both models give the right answers%s", why(err))
}

// finish ends the server and checks that the device's memory is as before.
func (c *checks) finish(ctx context.Context, s *server, before int64) error {
	err := s.end(ctx)
	c.check(err == nil, "exit code 0 after SIGTERM%s", why(err))
	now, err := c.usedAtMost(ctx, before+slack)
	c.onGPU(now <= before+slack, "after the end %d MiB of the device are used, before the start it was %d", now, before)
	return err
}

func shared(ctx context.Context, c *checks, o options) error {
	before, err := c.used(ctx)
	if err != nil {
		return err
	}
	s, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer s.kill()
	small, big, err := c.both(ctx, s)
	if err != nil {
		return err
	}
	c.onGPU(small.PID == big.PID, "one process serves the device (pids %d and %d)", small.PID, big.PID)
	st, err := s.client.Status(ctx)
	if err != nil {
		return err
	}
	c.onGPU(st.Runtime.Isolation == "device", "isolation auto is device (%s)", st.Runtime.Isolation)
	held, err := c.used(ctx)
	if err != nil {
		return err
	}
	c.onGPU(held >= before+int64(c.weights()), "with the models %d MiB of the device are used, before it was %d", held, before)

	stop := s.load(ctx, "big", 4)
	settled := int64(0)
	for version := int64(2); version <= 6; version++ {
		if err := s.publish("big", version, modeltest.BigVariables(c.weights(), float32(version))); err != nil {
			return err
		}
		if _, err := s.live(ctx, "big", version); err != nil {
			return err
		}
		if _, err := s.until(ctx, "the end of the version before", func(st *control.Status) bool {
			v := find(st, "big", version-1)
			return v == nil || v.Stage != "live" && v.Stage != "draining"
		}); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(s.models(), "big", strconv.FormatInt(version-1, 10))); err != nil {
			return err
		}
		c.answer(ctx, s, float32(version))
		if version == 3 { // two versions have been there at once: nothing more should be needed
			if settled, err = c.used(ctx); err != nil {
				return err
			}
		}
	}
	answered, failure := stop()
	c.check(failure == nil && answered > 0, "5 swaps under load: %d answers and no failed request%s", answered, why(failure))
	settled += int64(c.weights()) + slack // the allocator's pieces need not fit the next version
	now, err := c.usedAtMost(ctx, settled)
	if err != nil {
		return err
	}
	c.onGPU(now <= settled, "after the swaps %d MiB are used, after the second one it was with one version more %d", now, settled)

	if worker, err := s.live(ctx, "two_layer", 1); err != nil {
		return err
	} else if err := syscall.Kill(worker.PID, syscall.SIGKILL); err != nil {
		return err
	}
	if _, err := s.until(ctx, "the worker after a kill", func(st *control.Status) bool {
		for _, v := range []*control.Version{find(st, "two_layer", 1), find(st, "big", 6)} {
			if v == nil || v.Worker == nil || v.Worker.State != "live" || !c.dry && v.Worker.Restarts == 0 {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	c.answer(ctx, s, 6)
	now, err = c.usedAtMost(ctx, settled)
	if err != nil {
		return err
	}
	c.onGPU(now <= settled, "after a killed worker %d MiB are used", now)

	if err := errors.Join(s.remove("big"), s.remove("two_layer")); err != nil {
		return err
	}
	now, err = c.usedAtMost(ctx, before+slack)
	if err != nil {
		return err
	}
	c.onGPU(now <= before+slack, "with every model removed %d MiB are used, before the start it was %d", now, before)
	if err := s.publish("two_layer", 2, modeltest.TwoLayer()); err != nil {
		return err
	}
	again, err := s.live(ctx, "two_layer", 2)
	if err != nil {
		return err
	}
	err = s.twoLayer(ctx)
	c.check(err == nil, "a model that comes then is served%s", why(err))
	c.onGPU(again.Device != "", "on the GPU (device %q)", again.Device)
	return c.finish(ctx, s, before)
}

func separate(ctx context.Context, c *checks, o options) error {
	before, err := c.used(ctx)
	if err != nil {
		return err
	}
	o.flags = append(o.flags, "--runtime.isolation", "version")
	s, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer s.kill()
	small, big, err := c.both(ctx, s)
	if err != nil {
		return err
	}
	c.check(small.PID != big.PID, "each version has a process (pids %d and %d)", small.PID, big.PID)
	held, err := c.used(ctx)
	if err != nil {
		return err
	}
	if err := s.remove("big"); err != nil {
		return err
	}
	most := held - int64(c.weights())
	now, err := c.usedAtMost(ctx, most)
	if err != nil {
		return err
	}
	c.onGPU(now <= most, "without the big model %d MiB are used, with it it was %d", now, held)
	same, err := s.live(ctx, "two_layer", 1)
	if err != nil {
		return err
	}
	err = s.twoLayer(ctx)
	c.check(err == nil && same.PID == small.PID, "the small one goes on in its process%s", why(err))
	return c.finish(ctx, s, before)
}

// exhausted lets the worker have so little that running out of it does not take the machine's memory.
func exhausted(ctx context.Context, c *checks, o options) error {
	const limit, tooLarge = 1536, 4096 // MiB
	before, err := c.used(ctx)
	if err != nil {
		return err
	}
	if !c.dry {
		fraction := float64(limit) / float64(c.gpu.TotalBytes>>20)
		o.flags = append(o.flags, "--runtime.gpu.memory_fraction", strconv.FormatFloat(fraction, 'f', 6, 64))
	}
	s, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer s.kill()
	if err := errors.Join(s.publish("two_layer", 1, modeltest.TwoLayer()), s.publish("hungry", 1, modeltest.Hungry(0))); err != nil {
		return err
	}
	small, err := s.live(ctx, "two_layer", 1)
	if err != nil {
		return err
	}
	hungry, err := s.live(ctx, "hungry", 1)
	if err != nil {
		return err
	}
	c.onGPU(small.Device != "" && hungry.Device != "", "both models compute on the GPU (devices %q and %q)", small.Device, hungry.Device)
	if c.dry {
		err := errors.Join(s.one(ctx, "hungry", 8, 8), s.twoLayer(ctx))
		c.check(err == nil, "a request for a little memory is answered%s", why(err))
		return c.finish(ctx, s, before)
	}
	if small.Device == "" || hungry.Device == "" {
		return fmt.Errorf("the rest would be about the CPU; the log ends with\n%s", tail(s.logged()))
	}
	unharmed := func(after string) error {
		now, err := s.live(ctx, "two_layer", 1)
		if err != nil {
			return err
		}
		err = s.twoLayer(ctx)
		c.check(err == nil && now.PID == small.PID && now.Restarts == small.Restarts, "after %s the small model goes on in its process%s", after, why(err))
		return nil
	}

	_, err = s.predict(ctx, "hungry", []float32{tooLarge})
	c.check(err != nil && contains(err.Error(), "OOM", "out of memory", "RESOURCE_EXHAUSTED", "allocat"), "a request for more than the worker may have is refused: %.300v", err)
	err = s.one(ctx, "hungry", 8, 8)
	c.check(err == nil, "the next, smaller one is answered%s", why(err))
	if err := unharmed("a request that ran out of memory"); err != nil {
		return err
	}

	if err := s.publish("greedy", 1, modeltest.Hungry(tooLarge)); err != nil {
		return err
	}
	st, err := s.until(ctx, "the verdict on a model whose made-up run runs out of memory", func(st *control.Status) bool {
		v := find(st, "greedy", 1)
		return v != nil && (v.Stage == "quarantined" || v.Stage == "live")
	})
	if err != nil {
		return err
	}
	v := find(st, "greedy", 1)
	c.check(v.Stage == "quarantined" || v.Worker != nil && v.Worker.Device == "", "a model whose made-up run takes too much is refused or falls back: %s, %.300s", v.Stage, v.Message)
	if err := unharmed("that model"); err != nil {
		return err
	}

	if err := s.publish("wide", 1, modeltest.BigVariables(limit+512, 5)); err != nil {
		return err
	}
	wide, err := s.live(ctx, "wide", 1)
	if err != nil {
		return err
	}
	err = s.one(ctx, "wide", 1, 6)
	c.check(err == nil && wide.Device == "", "a model that does not fit answers from the CPU (device %q)%s", wide.Device, why(err))
	if st, err = s.client.Status(ctx); err != nil {
		return err
	}
	said := ""
	for _, condition := range st.Conditions {
		if condition.Code == health.CodeGPU && condition.Model == "wide" {
			said = condition.Message
		}
	}
	c.check(said != "", "the status says why: %s", said)
	c.check(contains(s.logged(), "version computes on the CPU although there is a GPU"), "the log says so")
	if err := unharmed("that model"); err != nil {
		return err
	}
	return c.finish(ctx, s, before)
}
