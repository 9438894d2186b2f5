"""What each event of the hub's log means, and what an operator does about it. A test fails for an event without a meaning."""

from __future__ import annotations

_REPORT = "A fault of the hub. Report the line, with `error` and `where`."

#: By part of the page and by event: the meaning, and what to do. "": nothing is to do.
MEANINGS: dict[str, dict[str, tuple[str, str]]] = {
    "Start, settings and end": {
        "starting": ("The hub has read its settings, and has its port.", ""),
        "listening": ("The hub serves. Without this line after `starting`, the start failed or is slow.", ""),
        "stopped": ("The hub has ended in order.", "Nothing after a stop on purpose. Else ask who sent the signal."),
        "issuer": ("At the start and after SIGHUP: an issuer, and how its tokens are checked.", ""),
        "names are nearly alike": (
            "Two realms, or two claims of `user_claim` in a realm, differ by a slip. Their users share no sessions.",
            "Spell them alike, if one was meant. `fhircast-hub check-config` shows who shares users.",
        ),
        "issuers stay": (
            "SIGHUP came, and the issuers are in the environment of the process.",
            "Put the issuers into the settings file, or restart the hub.",
        ),
        "insecure": (
            "`FHIRCAST_ALLOW_INSECURE` is set.",
            "Take the setting out wherever patients are real.",
        ),
        "secret can be read by every user": (
            "The file of a secret has a mode that lets everybody read.",
            "`chmod 600` on the file that `reason` leads to, and renew the secret.",
        ),
        "webhook secrets do not survive a restart": (
            "Without `FHIRCAST_SECRET_KEY`, a webhook with a `hub.secret` ends at its first event after a restart.",
            "Set `FHIRCAST_SECRET_KEY` or `FHIRCAST_SECRET_KEY_FILE`. Without webhooks, set `FHIRCAST_WEBHOOKS=false`.",
        ),
        "a proxy must end TLS": (
            "`FHIRCAST_PUBLIC_URL` is https, and the hub itself speaks plain http ([OPS-33](../behaviour.md#ops-33)).",
            "Let a proxy before the hub end TLS ([tls.md](../tls.md)), or give `--ssl-certfile` and `--ssl-keyfile`.",
        ),
        "settings reloaded": (
            "SIGHUP: the settings were read again. `count` is the number of issuers. Written at each `FHIRCAST_LOG_LEVEL`.",
            "",
        ),
        "settings not reloaded": (
            "SIGHUP: the settings have a mistake, and all stays as before.",
            "Mend what `reason` names, check with `fhircast-hub check-config`, and send SIGHUP again.",
        ),
        "settings need a restart": (
            "SIGHUP: the settings in `reason` have changed, and count after a restart only.",
            "Restart when it suits.",
        ),
        "certificate reloaded": ("SIGHUP: new connections get the certificate that is in the files now.", ""),
        "certificate not reloaded": (
            "SIGHUP: the files of the certificate cannot be used. The old certificate stays.",
            "Mend the files before the old certificate expires.",
        ),
        "certificates cannot be read": (
            "Trusted certificates, or that of the audit trail, cannot be read. Requests by https fail.",
            "Mend the file that `reason` names. The next request reads the file again.",
        ),
        "proxy cannot be used": (
            "A variable such as `HTTPS_PROXY` names no usable proxy ([SEC-6](../behaviour.md#sec-6)).",
            "Mend the variable that `reason` names, and restart.",
        ),
        "X-Forwarded-For is not believed": (
            "A proxy that `FHIRCAST_TRUSTED_PROXIES` does not name sends the header. All its clients count as one.",
            "Add `host` to the setting, if the proxy is yours.",
        ),
    },
    "Requests, sessions and sockets": {
        "request": (
            "One HTTP request or handshake was answered. A refusal has its `reason`, and `issuer` and `client_id` where they are known.",
            "Search by `request_id` or `topic`, when an application has trouble. `client_id` finds refusals alone.",
        ),
        "request failed": ("The answer was 500.", _REPORT),
        "session begun": ("A topic is used for the first time, or again after it was forgotten.", ""),
        "session changed": ("The number of subscriptions of a session has changed.", ""),
        "session forgotten": ("A session without subscriptions and open contexts is gone.", ""),
        "socket closed": (
            "A WebSocket has ended, with this `code` of the side that closed first ([close codes](#close-codes)).",
            "Many with 1006: look at the proxy and the network.",
        ),
        "socket failed": ("A WebSocket ended by an unexpected exception. Its client comes back.", _REPORT),
        "command failed": ("Work of the hub itself on a session ended by an unexpected exception.", _REPORT),
        "tick failed": ("Work at a deadline, such as a lease's end, ended by an unexpected exception.", _REPORT),
        "revocation failed": (
            "The check whether opaque tokens were revoked ended by an unexpected exception. The next check is soon.",
            _REPORT,
        ),
        "more bytes are held than may be, and no more are taken": (
            "At the start: the store holds more than `FHIRCAST_MAX_BYTES` ([LIM-11](../behaviour.md#lim-11)).",
            "Raise `FHIRCAST_MAX_BYTES`, and restart.",
        ),
    },
    "Issuers": {
        "issuer keys not fetched": (
            "The keys of an issuer could not be fetched. Known keys go on working. The line comes once a minute.",
            "Look at the issuer and at the way there. `fhircast-hub check-config --online` tells more.",
        ),
        "introspection failed": (
            "An issuer could not be asked about an opaque token. The client got 503.",
            "As above. Look at the hub's credentials at the issuer, too.",
        ),
        "issuer answers again": ("After one of the two lines above: the issuer works again.", ""),
    },
    "Webhooks": {
        "callback not verified": (
            "A callback did not repeat the challenge ([WHK-2](../behaviour.md#whk-2)). `status` 0: no answer came.",
            "Tell the application's operator. `check-config --online --callback URL` tells what the hub would do.",
        ),
        "webhook failed": ("Work on a callback ended by an unexpected exception. The next posts go on.", _REPORT),
    },
    "Audit trail": {
        "audit sink fails": (
            "A batch of entries was not written, and is tried again. `count` entries wait.",
            "Look at the disk, or at the FHIR server, that `FHIRCAST_AUDIT` names.",
        ),
        "audit entries are being lost": (
            "The queue of entries is full, or the hub stops. Entries are lost from now on.",
            "Page somebody. As above.",
        ),
        "audit entries lost": (
            "The sink works again, or the hub stops. `count` entries were lost since the last such line.",
            "Note the gap in the trail, with the times of both lines.",
        ),
    },
    "SQLite": {
        "store not written": (
            "A transaction failed. The requests got 503, and their changes were undone.",
            "Page somebody. Look at the disk: is it full, or read-only?",
        ),
        "store not checkpointed": (
            "SQLite's log was not moved into the file. Changes are safe, and the log grows.",
            "Look at the disk, and for programs that keep the file open, such as a backup.",
        ),
    },
    "PostgreSQL and many nodes": {
        "promise of the database": (
            "At the start and after each change: which failures accepted events survive ([OPS-16](../behaviour.md#ops-16)).",
            "At level `warning`: read [Many nodes](../scale.md), and mend the database's settings.",
        ),
        "the database does not answer": (
            "This node has no database. Requests get 503, and sockets stay ([NOD-11](../behaviour.md#nod-11)).",
            "Page somebody. Look at the database and at the network.",
        ),
        "the database answers again": ("After the line above: the node works again.", ""),
        "database refused": (
            "The database refused a statement, with this `sqlstate`.",
            "Look up the code in PostgreSQL's manual. 42501: rights are missing. 53100: the disk is full.",
        ),
        "this node begins anew": (
            "The others marked this node dead, or this node missed a change. Its sockets were closed with 1012.",
            "Once, after a failure: nothing. Again and again: look at network, clocks and load of this machine.",
        ),
        "this node cannot begin anew": (
            "The node's return ended by an unexpected exception, and is tried again.",
            _REPORT,
        ),
        "the clocks of this machine and of the database differ": (
            "The clocks differ by so many `seconds`. Leases and tokens end too early, or too late.",
            "Mend the time service of both machines.",
        ),
        "session cannot be read": (
            "A session in the database cannot be read. Its requests get 503.",
            "During an upgrade, finish the upgrade. Else somebody else writes into the tables.",
        ),
        "a commit of another node cannot be read": (
            "Another node wrote what this one cannot read. Sockets of the session are closed with 1012.",
            "As above.",
        ),
        "log not read": ("The changes of other nodes were not read. The node begins anew.", _REPORT),
        "group failed": ("A group of commits ended by an unexpected exception. Its requests got 503.", _REPORT),
        "no sign of life": ("The node's sign of life ended by an unexpected exception, and is tried again.", _REPORT),
        "duty failed": (
            "Work for a session of a dead node ended by an unexpected exception. The hub tries again.",
            _REPORT,
        ),
        "duties failed": (
            "The look for work of dead nodes ended by an unexpected exception. The hub tries again.",
            _REPORT,
        ),
    },
    "Workers": {
        "worker started": ("A worker process began.", ""),
        "worker ended": ("A worker has ended, because the hub stops.", ""),
        "worker died": (
            "A worker ended by a `signal` or with a `code`. A new one starts after `seconds`.",
            "Signal 9 may be a lack of memory. Else report the lines before.",
        ),
        "no process for a worker": (
            "The system gave no new process, so no worker began. The hub tries again.",
            "Look at the limits of memory and processes of the service.",
        ),
        "worker cannot start": (
            "A new process took the place of a dead worker, and refused to serve for this `reason`. The hub tries again. Other workers serve.",
            "Mend what `reason` names.",
        ),
        "the first worker does not serve yet": (
            "The first worker starts slowly, and the others wait for it.",
            "Look at the database.",
        ),
        "worker is killed": (
            "A worker did not end in time, and was killed ([NOD-18](../behaviour.md#nod-18)).",
            "Often: report the line. Leave the service ten seconds to stop.",
        ),
        "the other workers cannot show the metrics of this one": (
            "The socket between the workers could not be made. `/metrics` lacks this worker.",
            "Look at the folder for temporary files: is it full, or read-only?",
        ),
    },
    "Console": {
        "endpoints of login not found": (
            "The discovery of the console's issuer brings no login. Told once a minute, with the reason.",
            "Look at the issuer's discovery documents, or set `FHIRCAST_CONSOLE_ISSUER`.",
        ),
        "console failed": ("The operator's console failed. Sessions and events go on.", _REPORT),
    },
    "Traces": {
        "traces are on": ("Traces go to this `url`.", ""),
        "traces are off": (
            "Variables of OpenTelemetry ask for traces, and the hub cannot make them for this `reason`.",
            "Mend the variable, or install the package that `reason` names, and restart.",
        ),
        "traces are lost": ("The collector took no spans. Events do not wait for it.", "Look at the collector."),
        "traces are taken again": ("The collector works again. `count` spans were lost.", ""),
    },
    "Everything else": {
        "library message": (
            "A library has logged something. `logger` and `where` say which one and where.",
            "Read the lines around. Report a line that comes again and again.",
        ),
        "uncaught exception": ("An exception that nothing expected.", _REPORT),
    },
}
