// judge.go: what becomes of a job after a run: pure functions of the error, what the job has been through, and the settings.
package jobs

import (
	"errors"
	"fmt"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// Settings are what may change while the queue runs.
type Settings struct {
	MaxAttempts int           // of a job that asks for no other number
	MaxDeaths   int           // of workers
	Backoff     time.Duration // after the first failed run
	MaxBackoff  time.Duration
	MaxPayload  int64 // bytes of a body, and of an answer
	Retention   storage.Retention
}

// What a job waits for that costs it nothing.
const (
	shortPause = 50 * time.Millisecond // where nobody said how long
	longPause  = 5 * time.Second       // the most that a model's jobs wait before they ask admission again
	// A job whose version is not there looks again after an eighth of its age, within these.
	shortAbsence = time.Second
	longAbsence  = 30 * time.Second
)

// verdict is what becomes of a leased job: an outcome, or back to the queue.
type verdict struct {
	outcome *storage.Outcome
	back    storage.Back
	// pause, when above zero, is how long the others of the model wait too: nothing is wrong with the job.
	pause time.Duration
}

// judge decides about a job whose run ended with err. age is how old the job is, chance a number from 0 to 1.
func judge(err *inference.Error, it *storage.Item, s Settings, age time.Duration, chance float64) verdict {
	switch {
	case err.Reason == inference.ReasonSuspect:
		return dead(it, err, fmt.Sprintf("it killed its worker: %s", err.Msg))
	case errors.Is(err, inference.ErrWorkerDied) || errors.Is(err, inference.ErrRunTimeout):
		if it.Deaths+1 >= s.MaxDeaths {
			return dead(it, err, fmt.Sprintf("its worker died %d times while it ran it, which is as often as may be: %s", it.Deaths+1, err.Msg))
		}
		b := failure(err)
		b.Death, b.Delay = true, backoff(it.Deaths+it.Attempts+1, s, chance)
		return verdict{back: b}
	}
	switch err.Reason {
	case inference.ReasonQueueFull, inference.ReasonRate, inference.ReasonMemory, inference.ReasonLoading, inference.ReasonDraining, inference.ReasonDeadline,
		inference.ReasonWorker:
		b := failure(err)
		b.Delay = min(longPause, max(err.RetryAfter, shortPause))
		return verdict{back: b, pause: b.Delay}
	}
	switch err.Code {
	case inference.NotFound:
		b := failure(err) // the version, or its label's, is not there at the moment
		b.Delay = min(longAbsence, max(shortAbsence, age/8))
		return verdict{back: b}
	case inference.InvalidArgument, inference.FailedPrecondition, inference.OutOfRange, inference.Unimplemented:
		return ended(storage.Failed, err, err.Msg)
	}
	if err.Reason == inference.ReasonInput || err.Reason == inference.ReasonTooLarge {
		return ended(storage.Failed, err, err.Msg)
	}
	most := it.MaxAttempts
	if most <= 0 {
		most = s.MaxAttempts
	}
	if it.Attempts+1 >= most {
		return dead(it, err, fmt.Sprintf("attempt %d of %d failed: %s", it.Attempts+1, most, err.Msg))
	}
	b := failure(err)
	b.Attempt, b.Delay = true, backoff(it.Deaths+it.Attempts+1, s, chance)
	return verdict{back: b}
}

func failure(err *inference.Error) storage.Back {
	return storage.Back{Code: int(err.Code), Reason: err.Reason, Error: err.Msg}
}

func ended(state storage.JobState, err *inference.Error, text string) verdict {
	return verdict{outcome: &storage.Outcome{State: state, Version: err.Version, Code: int(err.Code), Reason: err.Reason, Error: text}}
}

func dead(it *storage.Item, err *inference.Error, text string) verdict {
	return ended(storage.Dead, err, text)
}

// backoff is how long a job waits after its n-th failed run: twice as long each time, the second half of it by chance.
func backoff(n int, s Settings, chance float64) time.Duration {
	d := s.Backoff
	for range min(n-1, 62) {
		if d *= 2; d >= s.MaxBackoff || d <= 0 {
			d = s.MaxBackoff
			break
		}
	}
	d = min(d, s.MaxBackoff)
	return d/2 + time.Duration(float64(d/2)*chance)
}
