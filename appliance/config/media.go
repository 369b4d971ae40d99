// media.go: how a model's inputs arrive, as files or samples.
package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/inferd/inferd/inference/media"
	"github.com/inferd/inferd/inference/tensor"
)

// MediaInputs say how inputs arrive, by the names that the signatures have for them.
type MediaInputs map[string]Media

// Media is how one input arrives. What is not written is [media.Spec]'s default.
type Media struct {
	Format string    `yaml:"format" doc:"What is sent: jpeg, png, jpeg|png (either), or pcm_s16le: sound of 16 bits, as a WAV file or as samples alone. Required."`
	DType  string    `yaml:"dtype" doc:"float32, or for pictures uint8 and for sound int16, whose numbers are the file's own. Not set: the input's own type."`
	Scale  Ratio     `yaml:"scale" doc:"What a pixel's channel (0 to 255) or a sample (-32768 to 32767) is multiplied with; a number, or two as in 1/255. Not set: 1 for pictures, 1/32768 for sound."`
	Mean   []float64 `yaml:"mean" doc:"Pictures: subtracted after scale; one number, or one for each channel in the order of order."`
	Std    []float64 `yaml:"std" doc:"Pictures: what the difference is divided by; one number, or one for each channel."`

	Size      []int64 `yaml:"size" doc:"Pictures: [height, width] that every picture is resized to. Not set: as the signature has it."`
	Fit       string  `yaml:"fit" doc:"Pictures of another shape: stretch (each side by itself), crop (the middle of what covers the size) or pad (all of it, with fill around). Not set: stretch."`
	Fill      int     `yaml:"fill" doc:"Pictures, fit: pad: what goes around them, from 0 (black) to 255, before scale."`
	Layout    string  `yaml:"layout" doc:"Pictures: NHWC or NCHW. Not set: NHWC."`
	Order     string  `yaml:"order" doc:"Pictures: the channels, RGB, BGR or gray. Not set: RGB."`
	MaxPixels int64   `yaml:"max_pixels" doc:"Pictures: a larger one is refused by its header. Not set: 16777216."`

	Rate       int   `yaml:"rate" doc:"Sound: samples per second. A WAV file of another rate is refused; samples alone do not say theirs. Not set: any."`
	Channels   int   `yaml:"channels" doc:"Sound: channels, interleaved. Not set: 1."`
	Window     int   `yaml:"window" doc:"Sound: samples (of each channel) in a row of the input. Not set: as the signature has it, and where that takes any number, the whole file."`
	Hop        int   `yaml:"hop" doc:"Sound: samples from the begin of a window to that of the next. Not set: window."`
	MaxSamples int64 `yaml:"max_samples" doc:"Sound: a file with more of them (for each channel) is refused. Not set: 16777216."`
}

// Ratio is a number that may be written as two, 1/255.
type Ratio float64

// Spec is the setting in the words of package media. A validated configuration has no other.
func (m Media) Spec() media.Spec {
	s := media.Spec{
		Format: media.Format(m.Format), Scale: float64(m.Scale), Mean: m.Mean, Std: m.Std,
		Layout: media.Layout(m.Layout), Order: media.Order(m.Order), Fit: media.Fit(m.Fit), Fill: m.Fill, MaxPixels: m.MaxPixels,
		Rate: m.Rate, Channels: m.Channels, Window: m.Window, Hop: m.Hop, MaxSamples: m.MaxSamples,
	}
	if len(m.Size) == 2 {
		s.Height, s.Width = int(m.Size[0]), int(m.Size[1])
	}
	s.DType, _ = media.ParseDType(m.DType)
	return s
}

// maxMedia bounds the inputs of one model that take files.
const maxMedia = 256

func (c *checker) media(at string, inputs MediaInputs) {
	if len(inputs) > maxMedia {
		c.addf(at, "%d inputs, at most %d can take files", len(inputs), maxMedia)
		return
	}
	for _, alias := range slices.Sorted(maps.Keys(inputs)) {
		m := inputs[alias]
		key := join(at, alias)
		if alias == "" {
			c.addf(at, "an input has no name; write the name that the signature has for it")
		}
		if len(m.Size) != 0 && (len(m.Size) != 2 || m.Size[0] < 1 || m.Size[1] < 1 || m.Size[0] > media.MaxSide || m.Size[1] > media.MaxSide) {
			c.addf(key+".size", "%v is not a size; write [height, width], of at most %d each", m.Size, media.MaxSide)
			m.Size = nil
		}
		if d, ok := media.ParseDType(m.DType); m.DType != "" && (!ok || d == tensor.Invalid) {
			c.addf(key+".dtype", "%q is not a type; write float32, uint8 or int16", shorten(m.DType))
		}
		spec := m.Spec()
		spec.Check(func(k, why string) { c.addf(key+"."+k, "%s", why) })
	}
}

func (r *Ratio) decodeNode(d *decoder, path string, n *yaml.Node) {
	v, err := parseRatio(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		d.addf(n, path, "%s is not a number; write one as in 0.5, or two as in 1/255", describe(n))
		return
	}
	*r = Ratio(v)
}

func parseRatio(s string) (float64, error) {
	above, below, divided := strings.Cut(s, "/")
	v, err := strconv.ParseFloat(strings.TrimSpace(above), 64)
	if err != nil || !divided {
		return v, err
	}
	by, err := strconv.ParseFloat(strings.TrimSpace(below), 64)
	if by == 0 {
		return 0, errors.New("division by zero")
	}
	return v / by, err
}

// encodeMedia writes what is set: what is not depends on the format and the signature.
func encodeMedia(m Media) *yaml.Node {
	n := pairs()
	for _, f := range fieldsOf(reflect.ValueOf(&m).Elem()) {
		if !f.value.IsZero() && (f.value.Kind() != reflect.Slice || f.value.Len() > 0) {
			n.Content = append(n.Content, plain(f.key), encode(f.value))
		}
	}
	return n
}

// mediaReference is the reference's chapter about files.
func mediaReference() string {
	var b strings.Builder
	b.WriteString("\n## Inputs that take files\n\n" + "```yaml" + `
models:
- name: mobilenet
  media:
    image: {format: jpeg|png, size: [224, 224], fit: crop, scale: 1/127.5, mean: [1]}
- name: yamnet
  media:
    waveform: {format: pcm_s16le, rate: 16000, window: 15600, hop: 7800}
` + "```" + "\n\n[media.md](media.md) has what becomes of them. The keys of `models[].media.INPUT`:\n\n| key | kind | meaning |\n|---|---|---|\n")
	for _, f := range fieldsOf(reflect.ValueOf(&Media{}).Elem()) {
		kind := kindOf(f.value)
		if _, ok := f.value.Interface().(Ratio); ok {
			kind = "number, or two as in 1/255"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.key, kind, cell(f.doc))
	}
	return b.String()
}
