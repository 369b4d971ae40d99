// Package ws is /v1/stream: many predictions, for many models, over one WebSocket. It is a codec in front of [api.Service], as rest and rpc
// are, and decides nothing about models. docs/streaming.md has the wire.
//
// Invariants:
//  1. Every request that a client was granted a credit for gets exactly one answer, an error among them, while the connection lasts; the
//     credit goes back with it. Who sends without a credit is closed.
//  2. One goroutine reads a connection at any time, and one writes it: whoever adds to the outbox while nobody writes becomes the writer,
//     and takes with it what others add meanwhile. A flush is for a burst of answers.
//  3. What a connection may have in memory is bounded: frames by max_frame, requests by credits, the outbox by its limit (past it whoever
//     would add waits, and so does the reader). What is large is booked in the requests' share before it is held.
//  4. A reader that is slow is told, then closed. What was to be durable is in the queue by then, and stays there.
//  5. An idle connection holds a goroutine that waits in a read, and no buffers but that of the read.
//
// gorilla/websocket makes the handshake and reads frames. It never writes once the handshake is made: its own answers (to a broken frame, a
// ping, a close) are caught and go through the outbox like everything else.
package ws
