// h2stream.go: a gRPC stream with many messages in flight, as light as the light caller.
package measure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/net/http2"
)

// StreamRate keeps so many messages in flight on one stream of method, for d, and returns answers per second. bad, which may be nil, looks at each answer.
func StreamRate(address, method string, message []byte, inFlight int, d time.Duration, bad func(answer []byte) error) (float64, error) {
	if inFlight*(len(message)+14) > MaxLight { // so that the server's windows need no looking after
		return 0, fmt.Errorf("%d messages of %d bytes are too many for the light stream", inFlight, len(message))
	}
	l, err := DialLight(address, method, message)
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	for _, f := range l.fields {
		if err := l.encoder.WriteField(f); err != nil {
			return 0, err
		}
	}
	if err := l.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: l.block.Bytes(), EndHeaders: true}); err != nil {
		return 0, err
	}
	count, owed, began := 0, inFlight, time.Now()
	for end := began.Add(d); ; {
		if owed > 0 && (owed == inFlight || l.r.Buffered() == 0) {
			if time.Now().After(end) {
				return float64(count) / time.Since(began).Seconds(), nil
			}
			for ; owed > 0; owed-- {
				if err := l.framer.WriteData(1, false, l.message); err != nil {
					return 0, err
				}
			}
			if l.unacked > MaxLight {
				if err := errors.Join(l.framer.WriteWindowUpdate(0, l.unacked), l.framer.WriteWindowUpdate(1, l.unacked)); err != nil {
					return 0, err
				}
				l.unacked = 0
			}
			if err := l.w.Flush(); err != nil {
				return 0, err
			}
		}
		ended, err := l.frame()
		if err == nil && ended {
			err = fmt.Errorf("the stream ended with gRPC status %q: %s", l.status, l.text)
		}
		if err != nil {
			return 0, err
		}
		for len(l.Answer) >= 5 {
			n := 5 + int(binary.BigEndian.Uint32(l.Answer[1:]))
			if len(l.Answer) < n {
				break
			}
			if bad != nil {
				if err := bad(l.Answer[5:n]); err != nil {
					return 0, err
				}
			}
			l.Answer = l.Answer[n:]
			count, owed = count+1, owed+1
		}
	}
}
