// latency.go: one request at a time, and thirty a second, beside the least that could answer: TF_SessionRun called by the handler of the same HTTP server.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/tools/measure"
)

// idleRate is the requests per second of the idle figure.
const idleRate = 30

// bareHTTP is the child that reads a request, runs the model DIR once on the same row each time, in its own process, and writes a fixed answer of SIZE bytes.
func bareHTTP(args []string) error {
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	m, sig, err := measure.LoadBare(args[0], tfrt.Options{})
	if err != nil {
		return err
	}
	x, _, err := smallInput()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answer := []byte(strings.Repeat("x", size))
	go func() {
		_ = appliance.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if _, err := m.Call(sig, []*tensor.Tensor{x}, []int{0}, func(int, *tensor.Tensor) error { return nil }); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
		})).Serve(l)
	}()
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// beside is inferd with the small model, and the least that could answer, with the request for both.
func (b *bench) beside() (s, bare *server, body []byte, err error) {
	if s, err = b.serve(filepath.Join(b.work, "models")); err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	body, msg, err := smallRequests()
	if err != nil {
		return nil, nil, nil, err
	}
	size, _, err := checkSmall(s, body, msg)
	if err != nil {
		return nil, nil, nil, err
	}
	bare, addresses, err := b.self(context.Background(), "bare-http", b.smallDir(), strconv.Itoa(size))
	if err != nil {
		return nil, nil, nil, err
	}
	bare.http = addresses[0]
	return s, bare, body, nil
}

func (b *bench) latency() error {
	s, bare, body, err := b.beside()
	if err != nil {
		return err
	}
	defer s.stop()
	defer bare.stop()
	took := func(s *server) func() (float64, error) {
		return func() (float64, error) {
			rate, err := measure.Drive(1, b.each, measure.HTTPCaller(s.http, restPath, body))
			return 1e6 / rate, err
		}
	}
	r, err := measure.Pairs("REST predict, small model, one connection: latency / bare run", "us", 1.3, b.n, took(s), took(bare))
	if err != nil {
		return err
	}
	r.Below = true
	fmt.Println(r.Report())
	return nil
}

// idle is what the core and its worker take of a processor for thirty requests a second, less what the least that could answer takes.
func (b *bench) idle() error {
	s, bare, body, err := b.beside()
	if err != nil {
		return err
	}
	defer s.stop()
	defer bare.stop()
	share := func(s *server) (float64, error) {
		call, done, err := measure.HTTPCaller(s.http, restPath, body)(0)
		if err != nil {
			return 0, err
		}
		defer done()
		tick := time.NewTicker(time.Second / idleRate)
		defer tick.Stop()
		before, began := measure.TreeCPU(s.cmd.Process.Pid), time.Now()
		for time.Since(began) < b.each {
			<-tick.C
			if err := call(); err != nil {
				return 0, err
			}
		}
		return 100 * (measure.TreeCPU(s.cmd.Process.Pid) - before) / time.Since(began).Seconds(), nil
	}
	var more, all []float64
	for range b.n {
		a, err := share(s)
		if err != nil {
			return err
		}
		c, err := share(bare)
		if err != nil {
			return err
		}
		more, all = append(more, a-c), append(all, a)
	}
	verdict(fmt.Sprintf("core and worker at %d requests/s beyond bare TensorFlow", idleRate), measure.Median(more), 2, "% of a core")
	fmt.Printf("  %.1f %% in all\n", measure.Median(all))
	return nil
}
