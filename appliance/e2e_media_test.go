// e2e_media_test.go: pictures and sound as they are, through every door that is there and the real runtime.
package appliance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// plainPicture is a picture of one colour.
func plainPicture(w, h int, c color.RGBA) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := 0; i < len(m.Pix); i += 4 {
		copy(m.Pix[i:], []byte{c.R, c.G, c.B, c.A})
	}
	return m
}

func pngFile(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegFile(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// b64 is the file in a request.
func b64(file []byte) string {
	return `{"b64":"` + base64.StdEncoding.EncodeToString(file) + `"}`
}

// mediaModels lists the models brightness and level with their media.
func mediaModels(cfg *config.Config) {
	cfg.Models = []config.Model{listed(cfg, "brightness"), listed(cfg, "level")}
	cfg.Models[0].Media = config.MediaInputs{"image": {Format: "jpeg|png", Scale: 0.5, Mean: []float64{10, 20, 30}, Fit: "crop", Order: "RGB"}}
	cfg.Models[1].Media = config.MediaInputs{"sound": {Format: "pcm_s16le", Rate: 8000, Hop: 4, Scale: 1}}
}

// answerOf is one member of a good REST answer.
func (s *server) answerOf(path, body, member string) any {
	s.t.Helper()
	code, text, err := s.rest(s.t.Context(), path, body)
	var doc map[string]any
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	if err != nil || code != http.StatusOK {
		s.t.Fatalf("%s: HTTP %d %s %v", path, code, text, err)
	}
	return doc[member]
}

func TestMediaOverTheDoors(t *testing.T) {
	s := serve(t, mediaModels)
	s.publish("brightness", 1, modeltest.Brightness())
	s.publish("level", 1, modeltest.Level())
	s.live("brightness", 1)
	s.live("level", 1)
	first, second := pngFile(t, plainPicture(40, 30, color.RGBA{100, 100, 100, 255})), jpegFile(t, plainPicture(64, 64, color.RGBA{200, 200, 200, 255}))
	want := "[[40 30 20] [90 80 70]]"
	if got := fmt.Sprint(s.answerOf("/v1/models/brightness:predict", `{"instances":[`+b64(first)+`,`+b64(second)+`]}`, "predictions")); got != want {
		t.Errorf("REST, rows: %s, want %s", got, want)
	}
	if got := fmt.Sprint(s.answerOf("/v1/models/brightness:predict", `{"inputs":{"image":[`+b64(first)+`,`+b64(second)+`]}}`, "outputs")); got != want {
		t.Errorf("REST, columns: %s, want %s", got, want)
	}
	files := &tensorpb.TensorProto{Dtype: typespb.DataType_DT_STRING, StringVal: [][]byte{first, second},
		TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: 2}}}}
	got, err := s.callGRPC(t.Context(), "brightness", "", map[string]*tensorpb.TensorProto{"image": files}, "y")
	if err != nil || !slices.Equal(got, []float32{40, 30, 20, 90, 80, 70}) {
		t.Errorf("gRPC: %v %v", got, err)
	}
	samples := []byte{1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 10, 0} // ten: two windows of eight, the second padded
	if got := fmt.Sprint(s.answerOf("/v1/models/level:predict", `{"inputs":`+b64(samples)+`}`, "outputs")); got != "[4.5 5.625]" {
		t.Errorf("sound: %s", got)
	}
	code, text, err := s.rest(t.Context(), "/v1/models/brightness:predict", `{"instances":[`+b64([]byte("GIF89a"))+`]}`)
	if err != nil || code != http.StatusBadRequest || !strings.Contains(string(text), `input \"image\": it is a GIF file, and this input takes JPEG or PNG; send such a file`) {
		t.Errorf("HTTP %d %s %v", code, text, err)
	}
	if _, text := s.get("/v1/models/level/metadata"); !strings.Contains(text, `"format": "pcm_s16le"`) || !strings.Contains(text, `"window": 8`) {
		t.Errorf("metadata: %s", text)
	}
	if a := s.admission(); a.Requests.InFlight != 0 {
		t.Errorf("after all: %+v", a.Requests)
	}
}

// TestMediaJob: a file in a job is held against its header at once, and decoded when the job runs.
func TestMediaJob(t *testing.T) {
	s := serve(t, mediaModels)
	s.publish("brightness", 1, modeltest.Brightness())
	s.live("brightness", 1)
	file := pngFile(t, plainPicture(5, 9, color.RGBA{100, 100, 100, 255}))
	code, text, err := s.rest(t.Context(), "/v1/models/brightness:submit", `{"instances":[`+b64(file)+`]}`)
	var job struct{ ID string }
	if err != nil || code != http.StatusAccepted || json.Unmarshal(text, &job) != nil {
		t.Fatalf("HTTP %d %s %v", code, text, err)
	}
	if _, state := s.get("/v1/jobs/" + job.ID + "?wait=60"); !strings.Contains(state, `"done"`) {
		t.Fatalf("%s", state)
	}
	if _, result := s.get("/v1/jobs/" + job.ID + "/result"); strings.Join(strings.Fields(result), "") != `{"predictions":[[40.0,30.0,20.0]]}` {
		t.Errorf("%s", result)
	}
	code, text, err = s.rest(t.Context(), "/v1/models/brightness:submit", `{"instances":[`+b64(file[:20])+`]}`)
	if err != nil || code != http.StatusBadRequest || !strings.Contains(string(text), "it is a PNG file that is cut short") {
		t.Errorf("half a file: HTTP %d %s %v", code, text, err)
	}
}

// TestMediaThatDoesNotFit: the version serves tensors, and says what is wrong; golden cases may have files.
func TestMediaThatDoesNotFit(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		mediaModels(cfg)
		cfg.Models[0].Media = config.MediaInputs{"image": {Format: "png", Size: []int64{8, 8}}, "picture": {Format: "png"}}
	})
	s.publish("brightness", 1, modeltest.Brightness())
	v := s.live("brightness", 1)
	for _, want := range []string{
		`input "image" of signature "serving_default" takes no files, tensors only: models[].media does not fit it: its shape is [-1,4,4,3], and a picture of order RGB and layout NHWC is [8,8,3]`,
		`models[].media says how input "picture" arrives, which no signature has; the inputs are "image"`,
	} {
		if !strings.Contains(v.Message, want) || !strings.Contains(s.logs.tail(40), "version does less than is configured") {
			t.Errorf("the status says %q\nwant %s", v.Message, want)
		}
	}
	code, text, err := s.rest(t.Context(), "/v1/models/brightness:predict", `{"instances":[`+b64(pngFile(t, plainPicture(4, 4, color.RGBA{})))+`]}`)
	if err != nil || code != http.StatusBadRequest || !strings.Contains(string(text), "is not of expected type: float") {
		t.Errorf("HTTP %d %s %v", code, text, err)
	}

	dir := modeltest.WriteVersion(t, filepath.Join(t.TempDir(), "brightness"), 1, modeltest.Brightness())
	m := config.Model{ModelOptions: config.Default().Defaults, Media: config.MediaInputs{"image": {Format: "png", Scale: 0.5}, "x": {Format: "png"}}}
	writeGolden(t, dir, `{"instances":[`+b64(pngFile(t, plainPicture(7, 7, color.RGBA{100, 100, 100, 255})))+`],"predictions":[[50,50,50]]}`)
	m.Name, m.BasePath = "brightness", filepath.Dir(dir)
	cfg := config.Default()
	cfg.Models = []config.Model{m}
	report, err := Check(t.Context(), dir, CheckOptions{Config: cfg})
	if text := fmt.Sprintf("%+v", report); err != nil || !report.OK || !strings.Contains(text, "1 golden case") || !strings.Contains(text, `which no signature has; the inputs are "image"`) {
		t.Errorf("%s %v", text, err)
	}
}

// TestGoldenFile: a golden case with a file is run against the runtime.
func TestGoldenFile(t *testing.T) {
	case1 := func(y string) string {
		return `{"instances":[` + b64(pngFile(t, plainPicture(7, 7, color.RGBA{100, 100, 100, 255}))) + `],"predictions":[` + y + `]}`
	}
	s := serve(t, mediaModels)
	for number, y := range map[int64]string{1: "[40,30,20]", 2: "[40,30,21]"} {
		dir := modeltest.WriteVersion(t, t.TempDir(), number, modeltest.Brightness())
		writeGolden(t, dir, case1(y))
		base := filepath.Join(s.models, "brightness")
		if err := os.MkdirAll(base, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir, filepath.Join(base, filepath.Base(dir))); err != nil {
			t.Fatal(err)
		}
	}
	s.live("brightness", 1)
	s.staged("brightness", 2, "quarantined", `output "y"[0,2] is 20, expected 21`)
}
