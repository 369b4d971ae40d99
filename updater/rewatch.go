// rewatch.go: the start of watching, now or when the kernel allows it.
package updater

import "time"

const rewatchAfter = 10 * time.Second // between tries where there is no inotify to be had

// startWatching opens the watcher and hands it to run, which must not block. Where the kernel gives none, as beyond its limits, that is said
// once, and tried again until it does.
func (l *loop) startWatching(run func(w *watcher)) {
	w, err := l.c.watch()
	if err != nil {
		if l.watching == nil {
			l.unwatched(err)
		}
		l.rewatch.do = func(time.Time) { l.startWatching(run) }
		l.wakeAt(&l.rewatch, time.Now().Add(rewatchAfter))
		return
	}
	l.watcher = w
	run(w)
	if l.watching != nil {
		l.watchedAgain()
		l.lookAgain() // each look says what to watch
	}
}

func (l *loop) watchedAgain() {
	l.watching = nil
	l.log.Info("folders are watched again")
	l.c.publish(func(p *published) { p.watch = "" })
}

// news is where the watcher tells that something changed; nil, which is never ready, without one.
func (l *loop) news() <-chan struct{} {
	if l.watcher == nil {
		return nil
	}
	return l.watcher.news
}
