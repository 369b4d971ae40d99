// cases.go: what lies in a version folder to be run before it serves, read by the doors' own codecs.
package appliance

import (
	"context"
	"fmt"
	"strings"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/api/rpc"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/updater"
)

// decodeCases reads recorded calls as gRPC reads them, and golden cases as REST reads requests and writes answers.
func decodeCases() updater.Decode {
	return updater.Decode{
		Recorded: func(rec inference.Recorded, signatures map[string]*inference.Signature) ([]*inference.Request, error) {
			list, err := rpc.DecodeRecorded(rec, signatures)
			for _, req := range list {
				if err == nil {
					err = api.DecodeFiles(context.Background(), req, 0, nil)
				}
			}
			return list, err
		},
		Golden: func(text []byte, signatures map[string]*inference.Signature) (updater.Golden, error) {
			g, err := rest.DecodeGolden(text, signatures)
			if err == nil {
				err = api.DecodeFiles(context.Background(), g.Request, 0, nil)
			}
			return updater.Golden(g), err
		},
	}
}

// cases reads through what lies in the version folder to be run before it serves, and says in f how much that is, or what is wrong in it.
func (c *checker) cases(dir string, info *savedmodel.Info, f *Finding) {
	if f.Severity == FindingWrong {
		return
	}
	n, err := updater.ReadCases(updater.Candidate{Dir: abs(dir), Info: info}, decodeCases())
	if err != nil {
		f.Severity, f.Message = FindingWrong, f.Message+", but "+updater.Message(err)
		return
	}
	if n.Recorded > 0 {
		f.Message += fmt.Sprintf("; %s", plural(n.Recorded, "recorded request"))
	}
	if n.Golden > 0 {
		f.Message += fmt.Sprintf("; %s", plural(n.Golden, "golden case"))
	}
}

// ranCases says what of them ran, "" when nothing did.
func ranCases(p updater.SignatureProof) string {
	var said []string
	if p.Recorded > 0 {
		said = append(said, fmt.Sprintf("answered %s", plural(p.Recorded, "recorded request")))
	}
	if p.Golden > 0 {
		said = append(said, fmt.Sprintf("gave what %s expected", plural(p.Golden, "golden case")))
	}
	return strings.Join(said, "; ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
