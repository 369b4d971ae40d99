// e2e_write_test.go: signatures that change a model's state, and inputs that a model keeps.
package appliance

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestCounterCountsOnce: however its worker dies under load, no increment is run twice. In each life the counter starts at nothing, so
// the answers of one life are 1, 2, 3, ... without a gap (but for a last one whose answer died with the worker).
func TestCounterCountsOnce(t *testing.T) {
	s := serve(t, nil)
	s.publish("counter", 1, modeltest.Counter())
	s.live("counter", 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		counts  = make(map[int]int) // how many lives answered this number; guarded by mu
		enough  = make(chan struct{})
		answers atomic.Int64
	)
	const each = 60 // answers between two deaths
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				y, err := s.callGRPC(t.Context(), "counter", "incr_counter_by", map[string]*tensorpb.TensorProto{"delta": scalar(1)}, "output")
				switch {
				case unavailable(err):
				case err != nil || len(y) != 1:
					t.Errorf("answered %v, %v", y, err)
					return
				default:
					mu.Lock()
					counts[int(y[0])]++
					mu.Unlock()
					if answers.Add(1)%each == 0 {
						enough <- struct{}{}
					}
				}
			}
		})
	}
	const lives = 3
	for life := 1; life <= lives; life++ {
		select {
		case <-enough:
		case <-time.After(patience):
			t.Fatal("no answers")
		}
		if life < lives {
			kill(t, s.live("counter", 1).Worker.PID, syscall.SIGKILL)
			s.until("a restart", func(st *control.Status) bool {
				return isLive(st, "counter", 1) && version(st, "counter", 1).Worker.Restarts == life
			})
		}
	}
	stop()
	go func() {
		for range enough { // nobody waits for more
		}
	}()
	wg.Wait()
	close(enough)
	if counts[1] > lives {
		t.Errorf("%d lives began with 1, there were %d", counts[1], lives)
	}
	for n := 2; n <= len(counts)+lives; n++ {
		if counts[n] > counts[n-1]+lives-counts[1] { // a life whose 1 was lost counts too
			t.Errorf("%d was answered %d times and %d only %d times: an increment was run twice", n, counts[n], n-1, counts[n-1])
		}
	}
	t.Logf("%d answers of %d lives", answers.Load(), lives)
}

// TestWritesAreNotRepeated: a run that writes and was begun is not begun again when its worker ends.
func TestWritesAreNotRepeated(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		m := listed(cfg, "dequeues")
		m.RunTimeout = 2 * time.Second // a good run on a busy machine takes less
		cfg.Models = []config.Model{m}
	})
	s.publish("dequeues", 1, modeltest.Dequeues())
	s.live("dequeues", 1)
	s.ask("dequeues", []float32{-1}, []float32{-1})
	for i, ask := range []func() ([]float32, error){
		func() ([]float32, error) { return s.askREST(t.Context(), "dequeues", []float32{1}) },
		func() ([]float32, error) { return s.askGRPC(t.Context(), "dequeues", []float32{2}) },
	} {
		y, err := ask()
		if !late(err) || !strings.Contains(err.Error(), "not repeated") {
			t.Errorf("a run that writes and never ends: %v, %v", y, err)
		}
		st := s.until("a restart", func(st *control.Status) bool {
			return isLive(st, "dequeues", 1) && version(st, "dequeues", 1).Worker.Restarts > i
		})
		if n := version(st, "dequeues", 1).Worker.Restarts; n != i+1 {
			t.Errorf("%d runs were ended, want %d", n, i+1)
		}
		s.ask("dequeues", []float32{-1}, []float32{-1})
	}
}

// TestKeptInput: what a model keeps of one request is not overwritten by the next one's bytes.
func TestKeptInput(t *testing.T) {
	s := serve(t, nil)
	m := modeltest.KeepsInput()
	// A signature that takes an input of the same kind and keeps nothing: y without its dependency on the assignment.
	for _, n := range m.Meta.GetGraphDef().GetNode() {
		if n.GetName() == "y" {
			echo := proto.CloneOf(n)
			echo.Name, echo.Input = "echo", []string{"x"}
			m.Meta.GraphDef.Node = append(m.Meta.GraphDef.Node, echo)
			break
		}
	}
	sig := proto.CloneOf(m.Meta.GetSignatureDef()[inference.DefaultSignature])
	sig.Outputs["y"].Encoding = &pb.TensorInfo_Name{Name: "echo:0"}
	m.Meta.SignatureDef["echo"] = sig
	s.publish("keeps", 1, m)
	s.live("keeps", 1)
	call := func(signature string, x ...float32) ([]float32, error) {
		inputs := map[string]*tensorpb.TensorProto{}
		if len(x) > 0 {
			inputs["x"] = column(x...)
		}
		return s.callGRPC(t.Context(), "keeps", signature, inputs, "y")
	}
	for i := range 5 {
		kept := []float32{float32(100 * i), 1, 2, 3}
		if y, err := call("", kept...); err != nil || !slices.Equal(y, kept) {
			t.Fatalf("keep %v: %v, %v", kept, y, err)
		}
		for j := range 20 {
			other := []float32{float32(-j), -1, -2, -3}
			if y, err := call("echo", other...); err != nil || !slices.Equal(y, other) {
				t.Fatalf("echo %v: %v, %v", other, y, err)
			}
			if y, err := call("kept"); err != nil || !slices.Equal(y, kept) {
				t.Fatalf("after %d other requests %v was kept, it was %v (%v)", j+1, y, kept, err)
			}
		}
	}
}

// scalar is a FLOAT tensor of shape [].
func scalar(x float32) *tensorpb.TensorProto {
	t := column(x)
	t.TensorShape.Dim = nil
	return t
}
