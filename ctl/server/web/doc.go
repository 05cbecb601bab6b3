// Package web serves a page for people: the devices of a daemon and what stands on what,
// how full pools are, latencies, throughput, clients, limits, operations, and problems
// with the commands that fix them.
//
//	GET  /             the page, its scripts, style and pictures: the same for everybody
//	GET  /api/state    all that the page shows, as JSON
//	GET  /api/device   tables and status lines of the device in the query's name
//	POST /api/do/NAME  an operation, if the page was started with operations
//
// # Who may see what
//
// Everything about devices is below /api and needs the token of the root, as
// Authorization: Bearer TOKEN. The address that udm web prints has the token behind a #,
// which browsers do not send; the page keeps it for the tab. There is no cookie, so
// neither other sites nor other ports of this machine can act for the user who has the
// page open. On top of that
//
//   - the name in Host must be an IP address, localhost or the configured one, so that a
//     name of a stranger that resolves to this machine leads nowhere
//   - requests that a browser marks as those of another origin are refused
//   - a content security policy allows nothing but the page's own files, and no frames
//
// # Cost
//
// The state is made when somebody asks, at most once a second for all who ask, from the
// metrics (package metrics): each number on the page is one of theirs. The page asks
// while it is visible. It has its history in the browser; the daemon keeps none.
// Connections and their time are bounded.
package web
