// A second CPU reads, with its MMU off, where its tables are.

start:
    enable  root
    adr     x9, data
    adr     x10, root
name_root:
    str     x10, [x9]
    unless  bad_mailbox_not_cleaned, unless bad_mailbox_cleaned_to_unification, dc cvac, x9
    only    bad_mailbox_cleaned_to_unification, dc cvau, x9
    unless  bad_mailbox_clean_not_finished, dsb sy // memory holds it before the other CPU may look
    start_second
    await   1
    b       exit

secondary:
    adr     x9, data
open_mailbox:
    ldr     x10, [x9]
    cbz     x10, failed
    enable  root
    tell    1
    b       park

writable
table root
    entry   1, level_2 + TABLE
table level_2
    entry   0, level_3 + TABLE
table level_3
    image_pages
flags_page
