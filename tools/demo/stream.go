// stream.go: the demo over the WebSocket: melodies as durable requests, in flight together, each answered once.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	inferd "github.com/inferd/inferd/clients/go"
)

// stream sends the melody, beginning with each of its notes in turn, and prints what comes back as it comes.
func stream(ctx context.Context, base string) error {
	c, err := inferd.New(base, inferd.Options{})
	if err != nil {
		return err
	}
	defer c.CloseIdle()
	s := c.Stream(inferd.StreamOptions{})
	defer func() { _ = s.Close() }()
	fmt.Printf("\nstreaming %d melodies over %s/v1/stream, each on disk before it is heard\n", len(melody), base)
	turned := func(by int) []int { return slices.Concat(melody[by:], melody[:by]) }
	for by := range melody {
		r := inferd.Request{ID: strconv.Itoa(by), Model: "basic-pitch", Instances: []any{column(synthesise(turned(by)))}, Durable: true}
		if err := s.Send(ctx, r); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
	s.CloseSend()
	for {
		r, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			st := s.Stats()
			fmt.Printf("\n%d sent, %d answered, over %d connection\n", st.Sent, st.Answered, st.Connections)
			return nil
		}
		if err = errors.Join(err, r.Err); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		var got []heard
		if err := json.Unmarshal(r.Predictions, &got); err != nil || len(got) == 0 {
			return fmt.Errorf("stream: %.100q (%w)", r.Predictions, err)
		}
		by, err := strconv.Atoi(r.ID)
		if err != nil {
			return fmt.Errorf("stream: an answer to %q", r.ID)
		}
		if err := compare(turned(by), got[0], r.Took); err != nil {
			return err
		}
		s.Ack(r)
	}
}
