// Package natstest runs a real NATS server with JetStream inside a test. It is a package of its own so that only
// tests of the NATS engine link the server. Start with New.
package natstest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options configure a Server; the zero value lets everybody in.
type Options struct {
	User, Password string
	Token          string
	Allow          []string    // subjects that User may use, default all
	TLS            *tls.Config // default none
	NoJetStream    bool
}

// Server is one NATS server on 127.0.0.1 that can be stopped and started again with its data.
type Server struct {
	o    Options
	dir  string
	port int
	s    *server.Server
}

// New starts a server that keeps its data in dir.
func New(dir string, o Options) (*Server, error) {
	s := &Server{o: o, dir: dir, port: server.RANDOM_PORT}
	return s, s.Start()
}

// Start starts a stopped server at the address that it had.
func (s *Server) Start() error {
	o := &server.Options{
		Host: "127.0.0.1", Port: s.port, StoreDir: s.dir, JetStream: !s.o.NoJetStream, NoSigs: true, NoLog: true,
		Authorization: s.o.Token, TLSConfig: s.o.TLS, TLS: s.o.TLS != nil, TLSTimeout: 5,
	}
	if s.o.User != "" {
		u := &server.User{Username: s.o.User, Password: s.o.Password}
		if s.o.Allow != nil {
			u.Permissions = &server.Permissions{Publish: &server.SubjectPermission{Allow: s.o.Allow}, Subscribe: &server.SubjectPermission{Allow: s.o.Allow}}
		}
		o.Users = []*server.User{u}
	}
	n, err := server.NewServer(o)
	if err != nil {
		return err
	}
	n.Start()
	if !n.ReadyForConnections(20 * time.Second) {
		n.Shutdown()
		return errors.New("the NATS server does not start")
	}
	s.s = n
	if a, ok := n.Addr().(*net.TCPAddr); ok {
		s.port = a.Port
	}
	return nil
}

// Addr is HOST:PORT.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Clients is how many connections there are.
func (s *Server) Clients() int { return s.s.NumClients() }

// Stop ends the server and waits for it; stopping twice is fine.
func (s *Server) Stop() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}

// Publish sends a message as a client that is no ds process.
func (s *Server) Publish(subject string, data []byte) error {
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing is lost: PONG says that the server has the message
	if _, err := fmt.Fprintf(c, "CONNECT {\"verbose\":false}\r\nPUB %s %d\r\n%s\r\nPING\r\n", subject, len(data), data); err != nil {
		return err
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if lines.Text() == "PONG" {
			return nil
		}
	}
	return errors.Join(errors.New("the NATS server closed the connection"), lines.Err())
}
