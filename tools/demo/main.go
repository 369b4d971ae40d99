// demo: what `make run` ends with. Starts inferd on a models directory, plays a synthesised melody to the basic-pitch model over REST, or
// with -stream (`make run STREAM=1`) several over one WebSocket, prints the notes that it heard beside the notes that were played,
// publishes the small models of tritonclient's example programs, and leaves the appliance in the foreground.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// What the model takes and gives: 2 s of mono audio, and a value per frame and key of the piano.
const (
	sampleRate = 22050
	samples    = 43844
	frames     = 172
	keys       = 88
	lowestKey  = 21 // MIDI number of column 0
)

var melody = []int{60, 64, 69, 76} // C4 E4 A4 E5, half a second each

func main() {
	once := flag.Bool("once", false, "end after the prediction instead of staying in the foreground")
	binary := flag.String("inferd", "build/inferd", "the binary to start")
	base := flag.String("url", "http://127.0.0.1:8501", "where its HTTP port will be")
	streamed := flag.Bool("stream", false, "stream melodies over the WebSocket, as durable requests, instead of one over REST")
	also := flag.String("simple", "", "then publish the models of tritonclient's example programs into this models directory")
	flag.Parse()
	if err := run(*binary, *base, *once, *streamed, *also, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run starts inferd with args and shows one prediction.
func run(binary, base string, once, streamed bool, also string, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := exec.Command(binary, append([]string{"serve"}, args...)...)
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	if err := server.Start(); err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	finish := func() error {
		_ = server.Process.Signal(syscall.SIGTERM)
		return <-ended
	}

	if err := waitReady(ctx, base+"/readyz?model=basic-pitch", ended); err != nil {
		return errors.Join(err, finish())
	}
	playing := play
	if streamed {
		playing = stream
	}
	if err := playing(ctx, base); err != nil {
		return errors.Join(err, finish())
	}
	if also != "" {
		if err := publish(also); err != nil {
			return errors.Join(err, finish())
		}
	}
	if once {
		return finish()
	}
	fmt.Printf("\ninferd is up: REST and health on %s, gRPC on 127.0.0.1:8500. Ctrl-C stops it.\n", base)
	fmt.Println("Copy another model's version folder to build/models/NAME/NUMBER and it is served; a higher number replaces a lower one.")
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return finish()
	}
}

func waitReady(ctx context.Context, url string, ended chan error) error {
	const limit = 60 * time.Second
	deadline := time.After(limit)
	for {
		if resp, err := http.Get(url); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case err := <-ended:
			ended <- nil
			return fmt.Errorf("inferd ended before it was ready: %w", err)
		case <-deadline:
			return fmt.Errorf("%s was not ready within %s", url, limit)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// play sends the melody and prints what was heard.
func play(ctx context.Context, base string) error {
	body, err := json.Marshal(map[string]any{"instances": []any{column(synthesise(melody))}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/models/basic-pitch:predict", bytes.NewReader(body))
	if err != nil {
		return err
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("predict: %s: %s", resp.Status, answer)
	}
	var got struct {
		Predictions []heard `json:"predictions"`
	}
	if err := json.Unmarshal(answer, &got); err != nil || len(got.Predictions) == 0 {
		return fmt.Errorf("predict: %.100q (%w)", answer, err)
	}
	return compare(melody, got.Predictions[0], time.Since(began))
}

// heard is a prediction: several outputs, the activity of each key among them.
type heard map[string][][]float64

// compare prints what was heard beside what was played.
func compare(melody []int, got heard, took time.Duration) error {
	var activity [][]float64
	for name, value := range got {
		if name == "note" || (activity == nil && len(value) == frames && len(value[0]) == keys) {
			activity = value
		}
	}
	if len(activity) != frames {
		return fmt.Errorf("predict: %d frames of note activity, want %d", len(activity), frames)
	}
	fmt.Printf("\nbasic-pitch heard 2 s of audio (%d samples) in %s:\n\n  time     played       heard        activity\n", samples, took.Round(time.Millisecond))
	wrong := 0
	for i, played := range melody {
		heard, strength := loudest(activity[i*frames/len(melody) : (i+1)*frames/len(melody)])
		mark := ""
		if heard != played {
			wrong++
			mark = "  <- not the same"
		}
		fmt.Printf("  %.1f s    %-4s (%d)    %-4s (%d)    %.2f%s\n", float64(i)*2/float64(len(melody)), name(played), played, name(heard), heard, strength, mark)
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d notes were heard wrong", wrong, len(melody))
	}
	return nil
}

// synthesise plays the notes one after another as tones with five harmonics, in [-1, 1].
func synthesise(notes []int) []float64 {
	audio := make([]float64, samples)
	each := samples / len(notes)
	for i := range audio {
		n := min(i/each, len(notes)-1)
		into, left := i-n*each, (n+1)*each-i
		envelope := math.Min(1, math.Min(float64(into), float64(left))/200) // no clicks between notes
		frequency := 440 * math.Pow(2, float64(notes[n]-69)/12)
		for harmonic := 1; harmonic <= 5; harmonic++ {
			audio[i] += 0.3 * envelope / float64(harmonic) * math.Sin(2*math.Pi*frequency*float64(harmonic)*float64(i)/sampleRate)
		}
	}
	return audio
}

// column gives every sample a dimension of its own, as the model takes it.
func column(audio []float64) [][1]float32 {
	c := make([][1]float32, len(audio))
	for i, v := range audio {
		c[i][0] = float32(v)
	}
	return c
}

// loudest is the key with the highest mean over the middle of the frames, where a note is neither starting nor ending.
func loudest(part [][]float64) (midi int, mean float64) {
	part = part[len(part)/4 : len(part)*3/4]
	for k := range keys {
		sum := 0.0
		for _, frame := range part {
			sum += frame[k]
		}
		if m := sum / float64(len(part)); m > mean {
			midi, mean = lowestKey+k, m
		}
	}
	return midi, mean
}

func name(midi int) string {
	return []string{"C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"}[midi%12] + strconv.Itoa(midi/12-1)
}
