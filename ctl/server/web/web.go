package web

import (
	"crypto/subtle"
	"embed"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"udm/ctl"
	"udm/ctl/server/metrics"
)

// Config configures Handler.
type Config struct {
	Service ctl.Service
	Root    string         // directory of the daemon
	Token   string         // what must be known to see anything
	Watch   *metrics.Watch // finds problems
	Host    string         // name by which the page may be opened, other than localhost and addresses; "" for none
	// Operations allows to change devices.
	Operations bool
	// Machine, if not nil, examines the machine for what it lacks.
	Machine func() []Check
	Log     *slog.Logger
}

// Check is the result of checking one property of the machine: see udm doctor.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Problem describes what is wrong, Without what does not work because of that, and
	// Command fixes it.
	Problem string `json:"problem,omitempty"`
	Without string `json:"without,omitempty"`
	Command string `json:"command,omitempty"`
}

//go:embed static
var static embed.FS

// Handler returns a handler for the page.
func Handler(c Config) (http.Handler, error) {
	files, err := fs.Sub(static, "static")
	if err != nil {
		return nil, err
	}
	states := newStates(c)
	api := http.NewServeMux()
	api.HandleFunc("GET /api/state", states.serve)
	api.HandleFunc("GET /api/device", func(w http.ResponseWriter, r *http.Request) { serveDevice(w, r, c.Service) })
	addOperations(api, c)
	mux := http.NewServeMux()
	mux.Handle("/api/", authorized(c.Token, api))
	mux.Handle("/", reading(http.FileServerFS(onlyFiles{files})))
	return guarded(c.Host, mux), nil
}

// reading refuses requests that are no questions.
func reading(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "only GET and HEAD are answered here")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// onlyFiles has no lists of directories.
type onlyFiles struct{ fs.FS }

func (f onlyFiles) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if err != nil || name == "." { // which is index.html
		return file, err
	}
	if st, err := file.Stat(); err != nil || st.IsDir() {
		file.Close()
		return nil, fs.ErrNotExist
	}
	return file, nil
}

// policy are headers of every answer.
var policy = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cross-Origin-Embedder-Policy": "require-corp",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Cache-Control":                "no-store",
}

// guarded refuses requests for other hosts.
func guarded(host string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range policy {
			w.Header().Set(name, value)
		}
		if !ours(r.Host, host) {
			refuse(w, http.StatusMisdirectedRequest, "this host name is not that of the page; use the address that udm web prints")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// ours reports whether a request's Host may be ours: an address, localhost, or name.
func ours(host, name string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost" || host != "" && host == strings.ToLower(name)
}

// authorized refuses requests without the token, and those of other origins.
func authorized(token string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case !sameOrigin(r):
			refuse(w, http.StatusForbidden, "requests of other sites are refused")
		case !ok || token == "" || subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1:
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "the token is missing or is not that of this daemon; use the address that udm web prints")
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// sameOrigin reports whether a request is the page's own, or of a program that is no
// browser.
func sameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	origin := r.Header.Get("Origin")
	return origin == "" || origin == "http://"+r.Host || origin == "https://"+r.Host
}

// refuse answers an error as JSON.
func refuse(w http.ResponseWriter, status int, reason string) {
	reply(w, status, map[string]string{"reason": reason})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who asked may be gone
}
