// poll.go: how often a model is looked at that nothing has been heard of.
package updater

import (
	"math/rand/v2"
	"time"
)

// A look takes some 0.2 ms of a processor. With many models the interval grows, so that looks which nothing has asked for take at most 0.4 %
// of one while folders are watched, for then they only find what a watch has missed; and 4 % where there is nothing but them.
const (
	lookShare      = 50 * time.Millisecond // per model, while folders are watched
	lookShareAlone = 5 * time.Millisecond
	pollMost       = 2 * time.Minute // whatever the number

	pollUnwatch = time.Second // the longest interval where watches do not tell of everything, with few models
	pollShare   = 10          // and where looks are slow, so many times what the last one took
)

// poll is the time to the next look when nothing is heard: on is the file system where that may be so though watches work, empty when it
// is none; took is what the last look cost.
func (l *loop) poll(on string, took time.Duration) time.Duration {
	watched := on == "" && l.watching == nil && !l.o.PollOnly
	every := pollEvery(l.o.PollInterval, len(l.models), watched)
	if watched {
		return every
	}
	return max(every, min(l.o.PollInterval, pollShare*took))
}

// pollEvery is the time between two looks at one of so many models.
func pollEvery(configured time.Duration, models int, watched bool) time.Duration {
	share := lookShare
	if !watched {
		configured, share = min(configured, pollUnwatch), lookShareAlone
	}
	return max(configured, min(pollMost, time.Duration(models)*share))
}

// spread shortens an interval that was stretched for the number of models by up to a quarter, at random: a thousand models that were looked at
// together at the start would be so for ever.
func spread(interval, configured time.Duration) time.Duration {
	if interval <= configured {
		return interval
	}
	return interval - rand.N(interval/4+1)
}
