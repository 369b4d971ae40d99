// message_test.go: what an operator reads of an error.
package updater

import (
	"errors"
	"fmt"
	"testing"

	"github.com/inferd/inferd/inference"
)

func TestMessage(t *testing.T) {
	precondition := &inference.Error{Code: inference.FailedPrecondition, Msg: "no variable v"}
	unknown := &inference.Error{Code: inference.NotFound, Msg: "no op x", Err: errors.New("load /models/m/1")}
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"plain", "torn", errors.New("torn")},
		{"the code of a refusal goes without saying", "no variable v", precondition},
		{"other codes are named, the cause is not", "NOT_FOUND: no op x", unknown},
		{"what it happened to stays", `made-up run of signature "s": no variable v`, fmt.Errorf("made-up run of signature %q: %w", "s", precondition)},
		{"what it happened to stays, twice", `made-up run of signature "s": second run: NOT_FOUND: no op x`,
			fmt.Errorf("made-up run of signature %q: %w", "s", fmt.Errorf("second run: %w", unknown))},
		{"with words after it", "NOT_FOUND: no op x", fmt.Errorf("%w (three times)", unknown)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := message(c.err); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
