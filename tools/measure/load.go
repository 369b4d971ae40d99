// Package measure is what the benches measure with: load generators as light as they can be, alternating pairs with their interval, and what
// /proc says of who took the machine. It is for tools only; `inferd bench` has a generator of its own (appliance/loadgen).
package measure

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// Caller makes the i-th connection: call makes one call over it, done closes it.
type Caller = func(i int) (call func() error, done func(), err error)

// Drive calls one from each of n connections until d has passed, and returns calls per second. Each connection is made by open, before
// the clock starts.
func Drive(n int, d time.Duration, open Caller) (float64, error) {
	calls := make([]func() error, n)
	for i := range calls {
		call, done, err := open(i)
		if err != nil {
			return 0, err
		}
		defer done()
		calls[i] = call
		if err := call(); err != nil { // the first call of a connection is not measured
			return 0, err
		}
	}
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	end := began.Add(d)
	for _, call := range calls {
		wg.Go(func() {
			for time.Now().Before(end) && failed.Load() == nil {
				if err := call(); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(count.Load()) / time.Since(began).Seconds(), nil
}

// HTTPCaller posts the same body again and again over one connection of its own. Each header is a line, "Name: value"; a Content-Type among
// them takes the place of JSON's.
func HTTPCaller(address, path string, body []byte, headers ...string) Caller {
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n", path, len(body))
	if !slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "Content-Type:") }) {
		headers = append(headers[:len(headers):len(headers)], "Content-Type: application/json")
	}
	request = append(request, strings.Join(headers, "\r\n")+"\r\n\r\n"...)
	request = append(request, body...)
	return func(int) (func() error, func(), error) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return nil, nil, err
		}
		r := bufio.NewReaderSize(conn, 64<<10)
		call := func() error {
			if _, err := conn.Write(request); err != nil {
				return err
			}
			return readResponse(r)
		}
		return call, func() { _ = conn.Close() }, nil
	}
}

// readResponse reads one HTTP/1.1 response, of either framing, and throws the body away. Another status than 200 is an error.
func readResponse(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(line, []byte("HTTP/1.1 200"))
	status := ""
	if !ok {
		status = string(line)
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if name, rest, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(rest))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		if err := readChunks(r); err != nil {
			return err
		}
	} else if _, err := r.Discard(length); err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("answered %s", strings.TrimSpace(status))
	}
	return nil
}

func readChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(n) + 2); err != nil || n == 0 {
			return err
		}
	}
}

// RawCodec passes bytes through.
type RawCodec struct{}

func (RawCodec) Name() string { return "proto" }

func (RawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (RawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// GRPCCaller sends the same message again and again over one connection of its own.
func GRPCCaller(address, method string, message []byte) Caller {
	return func(int) (func() error, func(), error) {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(RawCodec{}), grpc.MaxCallRecvMsgSize(1<<30)))
		if err != nil {
			return nil, nil, err
		}
		call := func() error {
			var answer []byte
			return conn.Invoke(context.Background(), method, &message, &answer)
		}
		return call, func() { _ = conn.Close() }, nil
	}
}

// Ask makes one call over gRPC and returns the answer.
func Ask(address, method string, message []byte) ([]byte, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(RawCodec{})))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var answer []byte
	err = conn.Invoke(context.Background(), method, &message, &answer)
	return answer, err
}
