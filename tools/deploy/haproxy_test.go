// haproxy_test.go: HAProxy's example in front of two real daemons, under load: one is drained and stopped, one is killed, and no request fails.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
)

// proxied is the example with the addresses of this test, and a socket that tells the states of the servers.
func proxied(t *testing.T, http, grpc string, boxes ...*daemon) (config, socket string) {
	t.Helper()
	text, dir := read(t, packaging+"/haproxy/haproxy.cfg"), short(t)
	replace := func(old, new string) {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("the example has no %q", old)
		}
		text = strings.ReplaceAll(text, old, new)
	}
	socket = filepath.Join(dir, "s")
	replace("    maxconn 20000\n", "    maxconn 200\n    stats socket "+socket+"\n")
	replace("bind :8501", "bind 127.0.0.1:"+http)
	replace("bind :8500", "bind 127.0.0.1:"+grpc)
	for i, b := range boxes {
		_, port, _ := net.SplitHostPort(b.http)
		name := fmt.Sprintf("server box%d 192.0.2.1%d:", i+1, i+1)
		replace(name+"8501", fmt.Sprintf("server box%d %s", i+1, b.http))
		replace(name+"8500 proto h2 check port 8501", fmt.Sprintf("server box%d %s proto h2 check port %s", i+1, b.grpc, port))
	}
	return write(t, filepath.Join(dir, "haproxy.cfg"), text), socket
}

// states are the servers by backend and name, as HAProxy sees them.
func states(socket string) (map[string]string, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "show stat\n"); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(line, ","); len(f) > 17 {
			out[f[0]+"/"+f[1]] = f[17]
		}
	}
	return out, nil
}

// load asks without a pause, over REST and gRPC, until it is stopped, and keeps what failed.
type load struct {
	rest, grpc atomic.Int64
	mu         sync.Mutex
	failed     []error // guarded by mu
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err))
}

func (l *load) run(ctx context.Context, t *testing.T, http1, h2 string) (stop func()) {
	t.Helper()
	conn, err := grpc.NewClient(h2, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := half(context.Background(), client, "http://"+http1, "half_plus_two"); err != nil {
					l.fail(fmt.Errorf("REST: %w", err))
				}
				l.rest.Add(1)
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := halfGRPC(conn); err != nil {
					l.fail(fmt.Errorf("gRPC: %w", err))
				}
				l.grpc.Add(1)
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
		_ = conn.Close() // nobody uses it any more
		client.CloseIdleConnections()
	}
}

func halfGRPC(conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req := &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "half_plus_two"}, Inputs: map[string]*tensorpb.TensorProto{"x": {
		Dtype: typespb.DataType_DT_FLOAT, FloatVal: []float32{1}, TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: 1}, {Size: 1}}}}}}
	resp := new(pb.PredictResponse)
	if err := conn.Invoke(ctx, "/tensorflow.serving.PredictionService/Predict", req, resp); err != nil {
		return err
	}
	if y := resp.GetOutputs()["y"].GetFloatVal(); len(y) != 1 || y[0] != 2.5 {
		return fmt.Errorf("the answer is %v", y)
	}
	return nil
}

// more waits until both kinds of requests have been answered so many times more.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	rest, grpc := l.rest.Load(), l.grpc.Load()
	until(t, "more answers", func() error {
		if l.rest.Load() < rest+n || l.grpc.Load() < grpc+n {
			return errors.New("not yet")
		}
		return nil
	})
}

func TestHAProxy(t *testing.T) {
	haproxy := tool(t, "haproxy", "haproxy")
	dir := models(t)
	one, two := start(t, dir), start(t, dir)
	front, back := freePort(t), freePort(t)
	config, socket := proxied(t, front, back, one, two)
	if out, err := exec.Command(haproxy, "-c", "-f", packaging+"/haproxy/haproxy.cfg").CombinedOutput(); err != nil {
		t.Errorf("the example as it is: %v\n%s", err, out)
	}
	var said strings.Builder
	proxy := exec.Command(haproxy, "-db", "-f", config)
	proxy.Stderr = &said
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = proxy.Process.Kill() // what it says is looked at when something failed
		_ = proxy.Wait()
		if t.Failed() {
			t.Logf("HAProxy said:\n%s", &said)
		}
	}()
	sees := func(box, state string) {
		t.Helper()
		until(t, box+" "+state, func() error {
			got, err := states(socket)
			if err == nil && (!strings.HasPrefix(got["inferd_http/"+box], state) || !strings.HasPrefix(got["inferd_grpc/"+box], state)) {
				err = fmt.Errorf("HAProxy has %v", got)
			}
			return err
		})
	}
	sees("box1", "UP")
	sees("box2", "UP")

	var l load
	stop := l.run(t.Context(), t, "127.0.0.1:"+front, "127.0.0.1:"+back)
	l.more(t, 20)

	// Drained: left out, answering all the while; then stopped.
	one.inferd("drain", "--wait=1m", "--quiet=500ms")
	sees("box1", "DOWN")
	sees("box2", "UP")
	if err := half(t.Context(), http.DefaultClient, "http://"+one.http, "half_plus_two"); err != nil {
		t.Errorf("drained, it does not answer: %v", err)
	}
	l.more(t, 20)
	one.inferd("drain", "--undo")
	sees("box1", "UP")
	l.more(t, 20)
	one.inferd("drain", "--wait=1m", "--quiet=500ms")
	one.signal(syscall.SIGTERM)
	l.more(t, 20)

	// Back, at another port, as a third box would come; and the other one killed in the middle.
	stop()
	if len(l.failed) > 0 {
		t.Fatalf("of %d REST and %d gRPC requests failed over a drain: %v", l.rest.Load(), l.grpc.Load(), l.failed)
	}
	drained := l.rest.Load() + l.grpc.Load()
	_ = proxy.Process.Kill() // it is started again with the addresses that count now
	_ = proxy.Wait()
	three := start(t, dir)
	config, socket = proxied(t, front, back, three, two)
	proxy = exec.Command(haproxy, "-db", "-f", config)
	proxy.Stderr = &said
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	sees("box1", "UP")
	sees("box2", "UP")
	stop = l.run(t.Context(), t, "127.0.0.1:"+front, "127.0.0.1:"+back)
	l.more(t, 20)
	three.signal(syscall.SIGKILL)
	sees("box1", "DOWN")
	l.more(t, 20)
	stop()
	if len(l.failed) > 0 {
		t.Errorf("of %d REST and %d gRPC requests failed over a kill: %v", l.rest.Load(), l.grpc.Load(), l.failed)
	}
	t.Logf("%d requests over drains and a stop, %d over a kill, none failed", drained, l.rest.Load()+l.grpc.Load()-drained)
}
