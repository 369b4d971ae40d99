// history_test.go: GET /v1/models/M/history.
package rest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/tensor"
)

func TestHistory(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	asked := ""
	history := func(model string, limit int) ([]Event, error) {
		asked = fmt.Sprint(model, " ", limit)
		switch model {
		case "m", "forgotten":
			return []Event{{At: at, What: "pinned", Version: 7, By: "ann"}, {At: at, What: "refused", Version: 6, Reason: "no <op>"}}, nil
		case "broken":
			return nil, errors.New("the disk's own words")
		}
		return nil, nil
	}
	a := serve(t, Options{History: history}, one(in("x", tensor.Float)), &servable{})
	a.catalog.Add("new")
	const two = "[\n {\n  \"at\": \"2026-01-02T03:04:05Z\",\n  \"what\": \"pinned\",\n  \"version\": 7,\n  \"by\": \"ann\"\n },\n" +
		" {\n  \"at\": \"2026-01-02T03:04:05Z\",\n  \"what\": \"refused\",\n  \"version\": 6,\n  \"reason\": \"no \\u003cop\\u003e\"\n }\n]\n"
	for _, c := range []struct {
		path  string
		code  int
		body  string
		asked string
	}{
		{"/v1/models/m/history", 200, two, "m 100"},
		{"/V1/Models/m/History?limit=7", 200, two, "m 7"},
		{"/v1/models/forgotten/history?limit=1000", 200, two, "forgotten 1000"},
		{"/v1/models/new/history", 200, "[]\n", "new 100"},
		{"/v1/models/nobody/history", 404, "Could not find any versions of model nobody", "nobody 100"},
		{"/v1/models/broken/history", 503, "the log of inferd has the cause", "broken 100"},
		{"/v1/models/m/history?limit=0", 400, `limit: \"0\" is not a number from 1 to 1000`, ""},
		{"/v1/models/m/history?limit=1001", 400, "from 1 to 1000", ""},
		{"/v1/models/m/history?limit=x", 400, "from 1 to 1000", ""},
		{"/v1/models/m/versions/7/history", 400, "Malformed request: GET /v1/models/m/versions/7/history", ""},
		{"/v1/models/m/labels/a/history", 400, "Malformed request", ""},
		{"/v1/models/m/history/x", 400, "Malformed request", ""},
		{"/v1/models/history", 404, "Could not find any versions of model history", ""}, // a model of that name is asked for
	} {
		asked = ""
		resp, got := a.do(t, "GET", c.path, "")
		if resp.StatusCode != c.code || !strings.Contains(got, c.body) || asked != c.asked || strings.Contains(got, "own words") {
			t.Errorf("%s: %d %s, asked %q; want %d %s, asked %q", c.path, resp.StatusCode, got, asked, c.code, c.body, c.asked)
		}
	}
	without := serve(t, Options{}, one(in("x", tensor.Float)), &servable{})
	if resp, got := without.do(t, "GET", "/v1/models/m/history", ""); resp.StatusCode != 400 || !strings.Contains(got, "Malformed request") {
		t.Errorf("without a history: %d %s", resp.StatusCode, got)
	}
}
