// oip.go: the Open Inference Protocol's binary tensors over HTTP against TensorFlow Serving's tensor_content over gRPC.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/tools/measure"
)

const (
	oipSide  = 112 // pixels: 150,528 bytes of float32 are a picture
	oipBound = 0.9
)

func (b *bench) oip() error {
	models := filepath.Join(b.work, "pictures")
	if _, err := modeltest.Colours(oipSide, oipSide).Publish(filepath.Join(models, "brightness"), 1); err != nil {
		return err
	}
	s, err := b.serve(models)
	if err != nil {
		return err
	}
	defer s.stop()
	data := randomFloats(oipSide * oipSide * 3)
	head := fmt.Appendf(nil, `{"inputs":[{"name":"image","shape":[1,%d,%d,3],"datatype":"FP32","parameters":{"binary_data_size":%d}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}`,
		oipSide, oipSide, len(data))
	header := "Inference-Header-Content-Length"
	const path = "/v2/models/brightness/infer"
	body := append(bytes.Clone(head), data...)
	msg, err := message("brightness", "image", data, 1, oipSide, oipSide, 3)
	if err != nil {
		return err
	}

	// Both give the same answer.
	req, err := http.NewRequest(http.MethodPost, "http://"+s.http+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set(header, strconv.Itoa(len(head)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || len(answer) < 12 {
		return fmt.Errorf("%s: %s %w", resp.Status, answer, err)
	}
	theirs, err := measure.Ask(s.grpc, predict, msg)
	if err != nil {
		return err
	}
	if err := nearProto(theirs, "y", floats(answer[len(answer)-12:])); err != nil {
		return err
	}

	for _, n := range []int{1, 8, connections} {
		over, under := *s, *s // each side's share of the one server's time
		r, err := measure.Pairs(fmt.Sprintf("v2 binary / gRPC tensor_content, 150 KB, %d connections", n), "calls/s", oipBound, b.n,
			func() (float64, error) {
				return over.rate(n, b.each, measure.HTTPCaller(s.http, path, body, header+": "+strconv.Itoa(len(head))))
			},
			func() (float64, error) { return under.rate(n, b.each, measure.GRPCCaller(s.grpc, predict, msg)) })
		if err != nil {
			return err
		}
		fmt.Println(r.Report())
		fmt.Printf("    processor time of inferd per call: v2 %.0f us, gRPC %.0f us\n", over.cost(), under.cost())
	}
	return nil
}
