// Images that come to no good end. They break no rule of translation: what is asked is that the witness says how they ended.

.ifdef bad_never_on
start:
    b       park
.endif

.ifdef bad_loops
start:
    enable  root
.Lforever:
    b       .Lforever
.endif

.ifdef bad_crashes
start:
    constant x0, FRAME
    msr     vbar_el2, x0                // memory that holds no code: the exception in the vector is the next
    isb
    udf     #0
.endif

.ifdef bad_faults_for_ever
start:
    enable  root
    constant x0, FRAME
    msr     vbar_el2, x0                // nothing is mapped there: not one instruction of the vector is executed
    isb
    udf     #0
.endif

.ifdef bad_fails
start:
    enable  root
    b       failed
.endif

.ifdef bad_second_cpu_never_on
start:
    enable  root
    start_second
    b       park
secondary:
    // It ends the machine: so it has certainly run.
    b       exit
.endif

.ifdef good_ends
start:
    enable  root
    b       exit
.endif

writable
table root
    entry   1, level_2 + TABLE
table level_2
    entry   0, level_3 + TABLE
table level_3
    image_pages
flags_page
