// Package manager runs plugins: find, authorise, open a session, choose a backend, run. It owns the Backend
// interface and knows no backend, no carrier and no service.
package manager
