/* Park and signal under the tenant's gate: flows that wait for one limit, and whoever frees, enqueues, cancels or changes beside them.
 *
 * Each atomic block is one statement of a transaction, under its own snapshot (READ COMMITTED); what a claim writes is seen by others
 * at its commit. Nothing ever polls: a claim is made only while there is a signal or an open flow. So if a flow is parked beside free
 * room, everybody waits for ever in the end, and spin reports an invalid end state. Claims cannot go on for ever without admitting
 * anything: each consumes a signal, closes an open flow, or meets a lock that another transaction will release.
 *
 * CLAIMERS, TASKS, LIMIT and LANES (1: all flows are in one lane; 2: each has its own, and the second is shut at some moment) choose
 * what is looked at. Each of these takes one mechanism out, and must fail:
 *   MUTANT_FOLD_UNGATED   signals are consumed by somebody who does not hold the gate
 *   MUTANT_STALE_PARK     a flow is parked by a count that is older than the fold
 *   MUTANT_COUNT_UNGATED  the limit is counted before the gate is taken
 *   MUTANT_ROOM_KEPT      room that a claim leaves opens no other flow
 *   MUTANT_LOCKED_IS_NONE a flow whose only head another transaction holds is taken for empty
 *   MUTANT_ONE_LANE       a free slot opens a flow of one lane only, which may be one that claims nothing
 */
#ifndef CLAIMERS
#define CLAIMERS 2
#endif
#ifndef TASKS
#define TASKS 3
#endif
#ifndef LIMIT
#define LIMIT 1
#endif
#ifndef LANES
#define LANES 1
#endif
#define FLOWS 2
#define LANE(f) (LANES == 1 -> 0 : f)

mtype = { gone, open, parked };

byte ready[FLOWS], running[FLOWS], ended[FLOWS], sent[FLOWS];
byte locked[FLOWS];                     /* ready tasks whose rows a transaction has locked */
byte changed[FLOWS], freed;             /* signals */
mtype state[FLOWS] = gone;
bool gate, shut, all_sent;

#define SIGNALS (changed[0] + changed[1] + freed > 0)
#define RUNNING (running[0] + running[1])
#define FREE (RUNNING < LIMIT -> LIMIT - RUNNING : 0)
#define SHUT(lane) (shut && lane == 1)   /* a claim of such a lane takes nothing, but it acts on signals */
#define CAN_CLAIM(lane) (SIGNALS || (!SHUT(lane) \
        && (state[0] == open && LANE(0) == lane || state[1] == open && LANE(1) == lane)))
#define DRAINED (all_sent && ended[0] == sent[0] && (shut || ended[1] == sent[1]))

#ifdef MUTANT_ONE_LANE
#define OTHER_LANE(left, most) left
#else
#define OTHER_LANE(left, most) (LANES == 2 -> most : left)
#endif

/* Open up to `most` parked flows, whichever; in each lane, as a lane may be one that claims nothing. */
inline open_parked(most) {
  n = most;
  if
  :: n > 0 && st[0] == parked -> st[0] = open; n = OTHER_LANE(n - 1, most);
     if :: n > 0 && st[1] == parked -> st[1] = open :: else -> skip fi
  :: n > 0 && st[1] == parked -> st[1] = open; n = OTHER_LANE(n - 1, most);
     if :: n > 0 && st[0] == parked -> st[0] = open :: else -> skip fi
  :: n == 0 || (st[0] != parked && st[1] != parked)
  fi;
  n = 0
}

/* Take signals, all of them or one (a fold is bounded), and open what they are about. */
inline fold() {
  if
  :: took_changed[0] = changed[0]; took_changed[1] = changed[1]; took_freed = freed
  :: changed[0] > 0 -> took_changed[0] = 1
  :: changed[1] > 0 -> took_changed[1] = 1
  :: freed > 0 -> took_freed = 1
  fi;
  if :: took_changed[0] > 0 && st[0] == gone && ready[0] > 0 -> st[0] = open :: else -> skip fi;
  if :: took_changed[1] > 0 && st[1] == gone && ready[1] > 0 -> st[1] = open :: else -> skip fi;
  if :: took_freed > 0 -> open_parked(FREE) :: else -> skip fi
}

inline count() { room = FREE }

/* At most one task of the flow; then it is empty, parked, or goes on. */
inline look_at(f) {
  if
  :: st[f] == open && LANE(f) == lane ->
     if
     :: room > 0 && ready[f] > locked[f] -> took[f] = 1; locked[f]++; room--
     :: else -> skip
     fi;
#ifdef MUTANT_LOCKED_IS_NONE
     n = ready[f] - locked[f];
#else
     n = ready[f] - took[f];            /* a plain read, which no lock hides anything from */
#endif
     if
     :: n == 0 -> st[f] = gone
     :: n > 0 && room == 0 -> st[f] = parked
     :: else -> skip
     fi;
     n = 0
  :: else -> skip
  fi
}

inline commit(f) {
  ready[f] = ready[f] - took[f]; locked[f] = locked[f] - took[f]; running[f] = running[f] + took[f];
  changed[f] = changed[f] - took_changed[f];
  if :: st[f] != was[f] -> state[f] = st[f] :: else -> skip fi;
  took[f] = 0; took_changed[f] = 0; st[f] = gone; was[f] = gone
}

active [CLAIMERS] proctype Claimer() {
  byte room, n, lane, took_freed, took[FLOWS], took_changed[FLOWS];
  mtype st[FLOWS] = gone;
  mtype was[FLOWS] = gone;
  do
  :: atomic { CAN_CLAIM(0) -> lane = 0 }
     goto claims;
  :: atomic { LANES == 2 && CAN_CLAIM(1) -> lane = 1 }
     goto claims;
  :: atomic { DRAINED -> break };
  continue: skip
  od;
  goto finished;
claims:
#ifdef MUTANT_COUNT_UNGATED
  atomic { count() };
#endif
  atomic { !gate -> gate = true };
#ifdef MUTANT_STALE_PARK
  atomic { count() };
#endif
  atomic {
    st[0] = state[0]; st[1] = state[1]; was[0] = st[0]; was[1] = st[1];
#ifndef MUTANT_FOLD_UNGATED
    fold()
#endif
  };
#if !defined(MUTANT_COUNT_UNGATED) && !defined(MUTANT_STALE_PARK)
  atomic { count() };
#endif
  atomic {
    if
    :: SHUT(lane) -> skip
    :: else ->
       if
       :: true -> look_at(0); look_at(1)
       :: true -> look_at(1); look_at(0)
       fi;
#ifndef MUTANT_ROOM_KEPT
       open_parked(room)
#endif
    fi
  };
  atomic {
    commit(0); commit(1); freed = freed - took_freed;
    room = 0; took_freed = 0; lane = 0;
    assert(RUNNING <= LIMIT);
    gate = false
  };
  goto continue;
finished: skip
}

#ifdef MUTANT_FOLD_UNGATED
active proctype Folder() {
  byte n, took_freed, took_changed[FLOWS];
  mtype st[FLOWS] = gone;
  do
  :: atomic {
       SIGNALS ->
       st[0] = state[0]; st[1] = state[1];
       fold();
       state[0] = st[0]; state[1] = st[1]; st[0] = gone; st[1] = gone;
       changed[0] = changed[0] - took_changed[0]; changed[1] = changed[1] - took_changed[1]; freed = freed - took_freed;
       took_changed[0] = 0; took_changed[1] = 0; took_freed = 0
     }
  :: atomic { DRAINED -> break }
  od
}
#endif

active proctype Enqueuer() {
  byte n, f;
  do
  :: atomic {
       n < TASKS ->
       if :: f = 0 :: f = 1 fi;
       n++; sent[f]++; ready[f]++; changed[f]++; f = 0
     }
  :: atomic { n == TASKS -> all_sent = true; break }
  od
}

/* A running task ends, or goes back once to be tried again; either frees its slot, in the transaction that tells of it. */
active proctype Settle() {
  byte f; bool retried;
  do
  :: atomic {
       RUNNING > 0 ->
       if :: running[0] > 0 -> f = 0 :: running[1] > 0 -> f = 1 fi;
       running[f]--; freed++;
       if
       :: ended[f]++
       :: !retried -> retried = true; ready[f]++; changed[f]++
       fi;
       f = 0
     }
  :: atomic { DRAINED && RUNNING == 0 -> break }
  od
}

/* One waiting task may be cancelled, and one be locked for a while by a transaction that changes nothing in the end. */
active proctype Other() {
  byte f; bool cancelled, looked;
  do
  :: atomic {
       !cancelled && ready[0] > locked[0] -> cancelled = true; ready[0]--; ended[0]++; changed[0]++
     }
  :: atomic {
       !cancelled && ready[1] > locked[1] -> cancelled = true; ready[1]--; ended[1]++; changed[1]++
     }
  :: atomic {
       !looked && (ready[0] > locked[0] || ready[1] > locked[1]) ->
       looked = true;
       if :: ready[0] > locked[0] -> f = 0 :: ready[1] > locked[1] -> f = 1 fi;
       locked[f]++
     };
     atomic { locked[f]--; f = 0 }
  :: true -> break
  od
}

/* The second lane may be shut for good: its queue is paused, its handler disabled, its worker gone. */
active proctype Shut() {
  if
  :: LANES == 2 -> shut = true
  :: skip
  fi
}
