// durable.go: requests that are in the queue before they are acknowledged, and their answers, which wait there for the client.
package ws

import "github.com/inferd/inferd/inference"

// durably does what an ack or a resume asks for.
func (c *conn) durably(m *message, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = first
	c.putError(reply{}, inference.Errorf(inference.Unimplemented, inference.ReasonInput, "the queue is off; set queue.enabled to have sessions"))
	c.flushLater()
}
