// streamview_test.go: what a stream shows of predictions, and what it reads.
package main

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestBrief(t *testing.T) {
	v := &streamView{classes: []string{"cat", "dog "}}
	for _, c := range []struct {
		text string
		rows bool
		want string
	}{
		{`[2.5]`, true, "2.5"},
		{`[[2.5,3]]`, true, "[2.5,3]"},
		{`[[0.1,0.7,0.05,0.1,0.05]]`, true, "dog 0.7, cat 0.1, class 3 0.1"},
		{`[{"b":[1,2],"a":123456789012345678}]`, true, "a: 123456789012345678 b: [1,2]"},
		{`{"scores":[[0.1,0.7,0.05,0.1,0.05]],"boxes":[[[1,2,3,4],[1,2,3,9],[1,2,3,4],[1,2,3,4],[1,2,3,4]]]}`, false, "boxes: 5x4 numbers, highest 9 scores: dog 0.7, cat 0.1, class 3 0.1"},
		{`["a\nb"]`, true, `"a\nb"`},
		{`[[null,1]]`, true, "[null,1]"},
		{`nonsense`, true, "nonsense"},
		{`[[1,[2]],[3]]`, false, "[[1,[2]],[3]]"},
	} {
		if got := v.brief([]byte(c.text), c.rows); got != c.want {
			t.Errorf("%s\n got  %s\n want %s", c.text, got, c.want)
		}
	}
	if got := v.brief([]byte(`["`+strings.Repeat("é", 400)+`"]`), true); len(got) > widestAnswer+40 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestLines(t *testing.T) {
	e := &env{in: strings.NewReader("[1.0]\n\n {\"a\": 2}\r\n{\"inputs\": 3, \"signature_name\": \"s\"}\nnonsense\n4")}
	src, err := e.open(t.Context(), "", "m", streamFlags{jsonl: "-"})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var got []string
	for {
		in, err := src.next(t.Context())
		var bad badInput
		if errors.Is(err, io.EOF) {
			break
		} else if errors.As(err, &bad) {
			got = append(got, bad.Error())
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, in.name+" "+string(in.instances)+string(in.inputs)+in.signature)
	}
	want := []string{"line 1 [[1.0]]", `line 3 [{"a": 2}]`, "line 4 3s", `standard input, line 5 is no JSON: "nonsense"`, "line 6 [4]"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestPictures(t *testing.T) {
	dir := t.TempDir()
	img := image.NewRGBA(image.Rect(0, 0, 4, 2))
	for x := range 4 {
		for y := range 2 {
			img.Set(x, y, color.RGBA{uint8(x * 10), 255, uint8(y), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"b.png": b.String(), "a.PNG": "no picture", "c.txt": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := func(f streamFlags, want taken) (string, error) {
		f.images = dir
		src, err := openPictures(f, want)
		if err != nil {
			return "", err
		}
		if !f.file {
			if _, err := src.next(t.Context()); !errors.As(err, new(badInput)) || !strings.Contains(err.Error(), "a.PNG") {
				t.Errorf("a file that is no picture: %v", err)
			}
		} else if _, err := src.next(t.Context()); err != nil {
			t.Error(err)
		}
		in, err := src.next(t.Context())
		if err != nil {
			return "", err
		}
		if _, err := src.next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v", err)
		}
		return string(in.inputs) + string(in.media), nil
	}
	for _, c := range []struct {
		flags streamFlags
		want  taken
		text  string
	}{
		{streamFlags{}, taken{alone: true, dtype: "UINT8", shape: []int64{-1, 1, 2, 3}}, "[[[[5,255,0],[25,255,0]]]]"},
		{streamFlags{scale: 5}, taken{alone: true, dtype: "FLOAT", shape: []int64{1, 1, 3}}, "[[[3,51,0.1]]]"},
		{streamFlags{}, taken{name: "x", dtype: "FLOAT", shape: []int64{1, 1, 1}}, `{"x":[[[0.604812]]]}`},
		{streamFlags{file: true}, taken{}, b.String()},
	} {
		got, err := open(c.flags, c.want)
		if err != nil || len(got) < 4 || got != c.text && !strings.HasPrefix(got, strings.TrimRight(c.text, "]}")) {
			t.Errorf("%+v: %s %v, want %s", c.want, got, err, c.text)
		}
	}
	for _, shape := range [][]int64{{-1, -1, -1, 3}, {-1, 10}, {2, 5, 5, 3}, {-1, 5, 5, 4}, nil} {
		if got, err := open(streamFlags{}, taken{dtype: "FLOAT", shape: shape}); err == nil {
			t.Errorf("%v: %s", shape, got)
		}
	}
}
