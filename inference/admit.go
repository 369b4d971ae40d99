// admit.go: the words of admission: how urgent a request is, whose it is, and the place that it was promised.
package inference

import (
	"fmt"
	"time"
)

// Class is how urgent a request is beside its deadline. A request of a lower class gives way to one of a higher class.
type Class int8

// The classes. The zero Class is Normal.
const (
	Interactive Class = iota - 1
	Normal
	Bulk
)

var classNames = [...]string{"interactive", "normal", "batch"}

// String is the word on the wire and in the configuration.
func (c Class) String() string {
	if c < Interactive || c > Bulk {
		return fmt.Sprintf("class %d", int8(c))
	}
	return classNames[c-Interactive]
}

// ParseClass is the Class of a word; the empty word is Normal.
func ParseClass(word string) (Class, bool) {
	if word == "" {
		return Normal, true
	}
	for i, name := range classNames {
		if name == word {
			return Interactive + Class(i), true
		}
	}
	return Normal, false
}

// Client is one who sends requests, between whom a model's time is shared. Two requests are of one client when their pointers are equal;
// a nil Client is one client too, of weight 1. A Client is immutable.
type Client struct {
	Name   string // an address, later a token's or certificate's name; for reports
	Weight float64
}

// Ticket is a place promised to a request before its body is read. The zero Ticket promises nothing.
type Ticket struct {
	From   Promiser
	Work   time.Duration // of runs, as predicted when it was promised
	Bytes  int64
	Class  Class
	Client *Client
	Due    time.Duration // when it is due, by the promiser's own clock
	Given  time.Duration // when it was promised
	Place  uint8         // the promiser's own
}

// Promiser gives tickets out and takes them back.
type Promiser interface {
	// Forgo takes back a ticket that was not used.
	Forgo(Ticket)
}

// Leave gives the place back if no one has taken it. Calling it again does nothing, nor does calling it on the zero Ticket.
func (t *Ticket) Leave() {
	if from := t.From; from != nil {
		t.From = nil
		from.Forgo(*t)
	}
}

// Admitter is a Servable that can say before a request's body is read whether there will be time and room for it.
type Admitter interface {
	// Admit promises a place to a request of so many bytes that must be answered by the deadline (zero: whenever), or says why not: an
	// *Error with ReasonDeadline, ReasonQueueFull or ReasonLoading, and where it can be known RetryAfter. It never blocks. The ticket is put
	// into the Request, whose Predict uses it up, or left.
	Admit(deadline time.Time, bytes int64, class Class, client *Client) (Ticket, error)
}
