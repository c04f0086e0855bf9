"""`launchctl print` of real Macs, put together from what people have shown of macOS 15 and 26, with our names in it."""

from __future__ import annotations

DIGEST = "0123456789abcdef" * 4

RUNNING = f"""\
system/io.rackserve.chat = {{
	active count = 1
	path = /Library/LaunchDaemons/io.rackserve.chat.plist
	type = LaunchDaemon
	state = running

	program = /opt/rackserve/current/llama.cpp/bin/llama-server
	arguments = {{
		/opt/rackserve/current/llama.cpp/bin/llama-server
		--alias
		chat
	}}

	working directory = /var/lib/rackserve/chat

	stdout path = /var/log/rackserve/chat.log
	stderr path = /var/log/rackserve/chat.log
	default environment = {{
		PATH => /usr/bin:/bin:/usr/sbin:/sbin
	}}

	environment = {{
		OSLogRateLimit => 64
		HOME => /var/lib/rackserve/chat
		RACKSERVE_DIGEST => {DIGEST}
		XPC_SERVICE_NAME => io.rackserve.chat
	}}

	domain = system
	username = _rackserve-chat
	group = _rackserve-chat
	minimum runtime = 30
	exit timeout = 50
	runs = 1
	pid = 893
	immediate reason = speculative
	forks = 3
	execs = 1
	initialized = 1
	trampolined = 1
	started suspended = 0
	proxy started suspended = 0
	checked allocations = 0 (queried = 1)
	checked allocations reason = no host
	checked allocations flags = 0x0
	last exit code = (never exited)

	resource coalition = {{
		ID = 1029
		type = resource
		state = active
		active count = 1
		name = io.rackserve.chat
	}}

	jetsam coalition = {{
		ID = 1030
		type = jetsam
		state = active
		active count = 1
		name = io.rackserve.chat
	}}

	spawn type = interactive (4)
	jetsam priority = 180
	jetsam memory limit (active) = (unlimited)
	jetsam memory limit (inactive) = (unlimited)
	jetsamproperties category = daemon
	jetsam thread limit = 32
	cpumon = default
	job state = running
	probabilistic guard malloc policy = {{
		activation rate = 1/1000
		sample rate = 1/0
	}}

	properties = keepalive | runatload | inferred program
}}
"""

# A job of StartInterval between two looks. No pid, and states of what is inside it.
WATCH = f"""\
system/io.rackserve.chat.health = {{
	active count = 0
	path = /Library/LaunchDaemons/io.rackserve.chat.health.plist
	type = LaunchDaemon
	state = not running

	program = /usr/local/libexec/rackserve/health
	arguments = {{
		/usr/local/libexec/rackserve/health
		chat
	}}

	default environment = {{
		PATH => /usr/bin:/bin:/usr/sbin:/sbin
	}}

	environment = {{
		OSLogRateLimit => 64
		MallocSpaceEfficient => 1
		RACKSERVE_DIGEST => {DIGEST}
		XPC_SERVICE_NAME => io.rackserve.chat.health
	}}

	domain = system
	minimum runtime = 10
	base minimum runtime = 10
	exit timeout = 5
	runs = 2418
	last exit code = 0

	run interval = 30 seconds
	event triggers = {{
		io.rackserve.chat.health.267436470 => {{
			keepalive = 0
			service = io.rackserve.chat.health
			stream = com.apple.launchd.interval
			state = active
			pid = 1
		}}
	}}

	spawn type = daemon (3)
	jetsam priority = 40
}}
"""

# A server that dies at every start.
FAILING = """\
system/io.rackserve.chat = {
	active count = 0
	path = /Library/LaunchDaemons/io.rackserve.chat.plist
	type = LaunchDaemon
	state = spawn scheduled

	environment = {
		RACKSERVE_DIGEST => 00
		XPC_SERVICE_NAME => io.rackserve.chat
	}

	minimum runtime = 30
	runs = 54
	last exit code = 78: EX_CONFIG
	job state = spawn failed
}
"""
