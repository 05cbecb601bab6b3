// Package web tests the daemon's page in a real browser: Debian's chromium, without a
// window, driven over its DevTools protocol. The build tag chromium keeps it out of the
// tests that run without a browser; make test-web runs it.
package web
