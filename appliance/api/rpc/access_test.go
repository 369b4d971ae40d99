// access_test.go: what is done before a message is read costs nothing where nobody is asked, and slow calls have an end.
package rpc

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/inferd/inferd/appliance/access"
)

func TestTheTapCostsNothingWhereNobodyIsAsked(t *testing.T) {
	o := Options{BodyTimeout: time.Minute, SlowTimeout: time.Minute}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	info := &tap.Info{FullMethodName: "/" + predictionService + "/Predict"}
	s := &server{opts: o}
	allocs := testing.AllocsPerRun(100, func() {
		got, err := o.tap(ctx, info)
		if err != nil || got != ctx || waitOf(got) != nil || s.may(got, access.Predict, "m") != nil {
			t.Error("something was done")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestTheTapAsks(t *testing.T) {
	o := Options{Access: access.New(access.Options{Path: t.TempDir() + "/none"})}
	for method, want := range map[string]codes.Code{
		"/" + predictionService + "/Predict":                        codes.Unauthenticated,
		"/" + jobsService + "/Submit":                               codes.Unauthenticated,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": codes.Unauthenticated,
		"/grpc.health.v1.Health/List":                               codes.Unauthenticated,
		"/grpc.health.v1.Health/Check":                              codes.OK,
		"/grpc.health.v1.Health/Watch":                              codes.OK,
		"/no.such.Service/Method":                                   codes.Unauthenticated,
	} {
		_, err := o.tap(atNowhere(t.Context()), &tap.Info{FullMethodName: method, Header: metadata.MD{}})
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %v", method, err, want)
		}
	}
}

// atNowhere is a call's context with an other end, as grpc's server makes it.
func atNowhere(ctx context.Context) context.Context {
	return peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}})
}

func TestSlowCallsHaveAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{BodyTimeout: time.Minute, SlowTimeout: 10 * time.Second}
		info := &tap.Info{FullMethodName: "/" + predictionService + "/Predict"}
		begin := func(deadline time.Duration) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			if deadline > 0 {
				ctx, cancel = context.WithTimeout(ctx, deadline)
			}
			ctx, err := o.tap(ctx, info)
			if err != nil {
				t.Fatal(err)
			}
			return ctx, cancel
		}
		never, end := begin(0)
		defer end()
		day, end := begin(24 * time.Hour) // says little more than none
		defer end()
		came, end := begin(0)
		defer end()
		waitOf(came).arrived()
		gone, end := begin(0)
		end() // the client has left
		time.Sleep(time.Minute)
		synctest.Wait()
		if never.Err() == nil || day.Err() == nil || came.Err() != nil || gone.Err() == nil {
			t.Errorf("%v %v %v %v", never.Err(), day.Err(), came.Err(), gone.Err())
		}
		time.Sleep(time.Hour)
		if came.Err() != nil {
			t.Error("a long prediction was ended")
		}
		waitOf(came).answered()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if came.Err() == nil {
			t.Error("an answer that is not taken waits for ever")
		}
	})
}
