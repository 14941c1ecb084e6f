package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

const (
	service = "testreg"
	issuer  = "testreg tokens"
	keyID   = "testreg"
)

// tokenServer gives tokens for whatever is asked to those who know the password, as the token specification of
// the distribution project says.
type tokenServer struct {
	o   options
	key *ecdsa.PrivateKey
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	user, password, ok := q.BasicAuth()
	if !ok || user != s.o.user || password != s.o.password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var list []access
	for _, scopes := range q.URL.Query()["scope"] {
		for scope := range strings.FieldsSeq(scopes) {
			kind, rest, _ := strings.Cut(scope, ":")
			if i := strings.LastIndexByte(rest, ':'); i > 0 {
				list = append(list, access{kind, rest[:i], strings.Split(rest[i+1:], ",")})
			}
		}
	}
	now := time.Now()
	token, err := s.sign(map[string]any{
		"iss": issuer, "sub": user, "aud": service, "iat": now.Unix(), "nbf": now.Unix() - 5, "exp": now.Add(5 * time.Minute).Unix(), "jti": rand.Text(), "access": list,
	})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300}) // the client may be gone
}

// sign makes a JSON Web Token, ES256 (RFC 7515 appendix A.3).
func (s *tokenServer) sign(claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := encode([]byte(`{"alg":"ES256","typ":"JWT","kid":"`+keyID+`"}`)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(text))
	r, t, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", err
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	t.FillBytes(sig[32:])
	return text + "." + encode(sig[:]), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwksOf is the set of the one key that verifies tokens (RFC 7517).
func jwksOf(key *ecdsa.PublicKey) ([]byte, error) {
	point, err := key.Bytes() // 4, X, Y
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "kid": keyID, "alg": "ES256", "use": "sig", "x": encode(point[1:33]), "y": encode(point[33:]),
	}}})
}
