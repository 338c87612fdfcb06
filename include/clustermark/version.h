/*
 * version.h: this program's version, as one function so that a test can let one rank claim another.
 */
#ifndef CLUSTERMARK_VERSION_H
#define CLUSTERMARK_VERSION_H

/* "0.1.0" */
const char *cm_version_text(void);

#endif
