// owner.go: whose a job is. The store knows nothing of it: the owner's name stands at the beginning of the job's key, or of its session's name.
package jobs

import (
	"crypto/rand"
	"strings"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// ownedKey is the key of a job that comes with a token: keys of two tokens never meet, and a job without a key gets one that nobody else has.
func ownedKey(owner, key string) string {
	if key == "" {
		return "o:" + owner + ":" + rand.Text()
	}
	return "t:" + owner + ":" + key
}

// SessionOf is the name of a session with that random part, of the token of that name. A token's name has no colon.
func SessionOf(owner, random string) string {
	if owner == "" {
		return random
	}
	return owner + ":" + random
}

// OwnerOfSession is the name of the token whose session it is, "" when it belongs to none.
func OwnerOfSession(session string) string {
	owner, _, owned := strings.Cut(session, ":")
	if !owned {
		return ""
	}
	return owner
}

// ownerOf is the name of the token that the job came with, "" when it came with none.
func ownerOf(it *storage.Item) string {
	if it.Session != "" {
		return OwnerOfSession(it.Session)
	}
	kind, rest, _ := strings.Cut(it.Key, ":")
	if kind != "o" && kind != "t" {
		return ""
	}
	owner, _, _ := strings.Cut(rest, ":")
	return owner
}

// Readable says why the holder of a grant may not see, or do something to, the job: it is not his, which is told as if it were not there; or it is
// nobody's, and of a model that he may not submit to.
func (s *Service) Readable(grant *access.Grant, id string) *inference.Error {
	if grant == nil {
		return nil
	}
	it, err := s.Job(id)
	if err != nil {
		return err
	}
	if !grant.Owns(ownerOf(&it)) {
		return s.refusal(storage.ErrNoJob, id)
	}
	return grant.May(access.Submit, it.Model)
}
