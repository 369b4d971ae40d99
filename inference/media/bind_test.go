// bind_test.go: which spec fits which input, and the sentence where it does not.
package media

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

func TestBindFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		spec  Spec
		dtype tensor.DType
		shape tensor.Shape
		says  string
	}{
		{"strings", Spec{Format: JPEG}, tensor.String, tensor.Shape{-1}, "the graph itself reads the files; leave its media out"},
		{"type", Spec{Format: JPEG}, tensor.Int32, tensor.Shape{-1, 9, 9, 3}, "its type is int32, and pictures becomes float32 or uint8 only"},
		{"type of sound", Spec{Format: PCM}, tensor.Uint8, tensor.Shape{-1, 9}, "sound becomes float32 or int16 only"},
		{"another type", Spec{Format: JPEG, DType: tensor.Float}, tensor.Uint8, tensor.Shape{-1, 9, 9, 3}, "its type is uint8 and dtype is float32"},
		{"scaled bytes", Spec{Format: JPEG, Scale: 2}, tensor.Uint8, tensor.Shape{-1, 9, 9, 3}, "leave scale, mean and std out"},
		{"channels", Spec{Format: JPEG}, tensor.Float, tensor.Shape{-1, 9, 9, 1}, "its shape is [-1,9,9,1], and a picture of order RGB and layout NHWC is [-1,-1,3]"},
		{"layout", Spec{Format: JPEG}, tensor.Float, tensor.Shape{-1, 3, 9, 9}, "its shape is [-1,3,9,9]"},
		{"size", Spec{Format: JPEG, Height: 8, Width: 9}, tensor.Float, tensor.Shape{-1, 9, 9, 3}, "is [8,9,3]"},
		{"no size", Spec{Format: JPEG}, tensor.Float, tensor.Shape{-1, -1, -1, 3}, "which leaves the size open; write size: [height, width]"},
		{"rank", Spec{Format: JPEG}, tensor.Float, tensor.Shape{-1}, "its shape is [-1]"},
		{"huge", Spec{Format: JPEG}, tensor.Float, tensor.Shape{-1, 1 << 40, 1, 3}, "pictures of at most 8192 by 8192"},
		{"no format", Spec{}, tensor.Float, tensor.Shape{-1, 9, 9, 3}, `format: "" is none of jpeg, png`},
		{"window", Spec{Format: PCM, Window: 8}, tensor.Float, tensor.Shape{-1, 9}, "its shape is [-1,9], and a window is [8,1]"},
		{"stereo", Spec{Format: PCM, Channels: 2}, tensor.Float, tensor.Shape{-1, 9, 1}, "and a window is [-1,2]"},
		{"hop without window", Spec{Format: PCM, Hop: 3}, tensor.Float, tensor.Shape{-1, -1}, "hop is 3, and the window has any number of samples"},
		{"hop over the signature's window", Spec{Format: PCM, Hop: 10}, tensor.Float, tensor.Shape{-1, 9}, "hop is 10, and the window has 9 samples"},
		{"a window without samples", Spec{Format: PCM}, tensor.Float, tensor.Shape{-1, 0}, "windows of 1 to"},
	} {
		if _, err := test.spec.Bind(test.dtype, test.shape, false); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.says)
		}
	}
}

func TestBindUnknownRank(t *testing.T) {
	in, err := Spec{Format: JPEG, Height: 4, Width: 5}.Bind(tensor.Float, nil, true)
	if err != nil || !in.row.Equal(tensor.Shape{4, 5, 3}) || in.Single() {
		t.Errorf("%v %+v", err, in)
	}
	if _, err := (Spec{Format: JPEG}).Bind(tensor.Float, nil, true); err == nil || !strings.Contains(err.Error(), "its shape is unknown, which leaves the size open") {
		t.Error(err)
	}
	in, err = Spec{Format: PCM, Window: 4, Channels: 2}.Bind(tensor.Int16, nil, true)
	if err != nil || !in.row.Equal(tensor.Shape{4, 2}) || in.Spec().Hop != 4 {
		t.Errorf("%v %+v", err, in)
	}
}

// TestCheck: every key that cannot be is named, and only those.
func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name string
		spec Spec
		want string
	}{
		{"good picture", Spec{Format: JPEG, Height: 224, Width: 224, Layout: NCHW, Order: BGR, Fit: Pad, Fill: 114, Scale: 1. / 255, Mean: []float64{1, 2, 3}, Std: []float64{1}, DType: tensor.Float, MaxPixels: 5}, ""},
		{"good sound", Spec{Format: PCM, Rate: 16000, Channels: 2, Window: 10, Hop: 5, DType: tensor.Int16, MaxSamples: 9}, ""},
		{"words", Spec{Format: PNG, Layout: "HWC", Order: "RGBA", Fit: "cover", DType: tensor.Int16}, "layout order fit dtype"},
		{"numbers", Spec{Format: PNG, Height: -1, Width: MaxSide + 1, Fill: 256, MaxPixels: -1}, "size size fill max_pixels fill"},
		{"lists", Spec{Format: PNG, Scale: math.Inf(1), Mean: []float64{1, 2}, Std: []float64{1, 0, 1}}, "scale mean std"},
		{"gray lists", Spec{Format: PNG, Order: Gray, Mean: []float64{1, 2, 3}}, "mean"},
		{"bytes scaled", Spec{Format: PNG, DType: tensor.Uint8, Scale: 2}, "scale"},
		{"sound's keys", Spec{Format: PNG, Rate: 1, Channels: 1, Window: 1, Hop: 1, MaxSamples: 1}, "channels hop max_samples rate window"},
		{"a picture's keys", Spec{Format: PCM, Height: 1, Layout: NHWC, Order: RGB, Fit: Crop, Mean: []float64{1}}, "fit layout mean order size"},
		{"hop", Spec{Format: PCM, Window: 4, Hop: 5}, "hop"},
		{"sound's numbers", Spec{Format: PCM, Rate: -1, Channels: 99, Window: -1, MaxSamples: -1}, "rate channels window max_samples"},
	} {
		var got []string
		test.spec.Check(func(key, why string) { got = append(got, key) })
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: faults in %v, want %s", test.name, got, test.want)
		}
	}
}

func TestDescribe(t *testing.T) {
	b, err := json.Marshal(bind(t, Spec{Format: JPEGOrPNG, Scale: 0.5}, tensor.Float, -1, 2, 3, 3).Describe())
	if want := `{"format":"jpeg|png","dtype":"float32","scale":0.5,"height":2,"width":3,"layout":"NHWC","order":"RGB","fit":"stretch","max_pixels":16777216}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	b, err = json.Marshal(bind(t, Spec{Format: PCM, Rate: 8000}, tensor.Int16, 7).Describe())
	if want := `{"format":"pcm_s16le","dtype":"int16","rate":8000,"channels":1,"window":7,"hop":7,"max_samples":16777216,"single":true}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}
