// media.go: a picture or sound for `inferd predict`, sent as it is.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

// isMedia reports whether data begins as a picture or a WAV file does.
func isMedia(data []byte) bool {
	for _, magic := range []string{"\xff\xd8\xff", "\x89PNG\r\n\x1a\n"} {
		if bytes.HasPrefix(data, []byte(magic)) {
			return true
		}
	}
	return len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WAVE"
}

// predictMedia sends the file in base64, as a list of one: what takes files takes that, and so does a graph that decodes them itself.
func (e *env) predictMedia(ctx context.Context, model, file string, data []byte, f predictFlags) error {
	var inputs any = []map[string][]byte{{"b64": data}} // encoding/json writes bytes in base64
	if f.input != "" {
		inputs = map[string]any{f.input: inputs}
	}
	text, err := json.Marshal(inputs)
	if err != nil {
		return err
	}
	err = e.predictMembers(ctx, model, map[string]json.RawMessage{"inputs": text}, f)
	if err != nil && e.takesNoFiles(ctx, model) {
		return fmt.Errorf("%w; %s is sent as it is, and the configuration does not say how an input of model %s takes it: set models[].media (docs/media.md), or send numbers", err, called(file), model)
	}
	return err
}

// takesNoFiles asks the model's metadata whether nothing is said of files. It is false when that cannot be known.
func (e *env) takesNoFiles(ctx context.Context, model string) bool {
	c, err := e.client()
	if err != nil {
		return false
	}
	status, text, err := c.Do(ctx, http.MethodGet, "/v1/models/"+url.PathEscape(model)+"/metadata", nil)
	var doc struct {
		Metadata struct {
			Media map[string]any `json:"media"`
		} `json:"metadata"`
	}
	return err == nil && status == http.StatusOK && json.Unmarshal(text, &doc) == nil && len(doc.Metadata.Media) == 0
}
