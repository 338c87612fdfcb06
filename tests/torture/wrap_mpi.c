/*
 * MPI calls of host/comm/mpi*.c, each of which can be made to fail with MPI_ERR_OTHER instead of
 * being made. Linked into a module of its own (--wrap); fail_now is the program's. What MPI
 * allocates is its own business.
 */
#include <mpi.h>

#include "torture/fail.h"

#define WRAP_MPI(name, parameters, arguments)                                                      \
    int __real_##name parameters;                                                                  \
    int __wrap_##name parameters;                                                                  \
    int __wrap_##name parameters                                                                   \
    {                                                                                              \
        if (fail_now(FAIL_MPI, #name))                                                             \
            return MPI_ERR_OTHER;                                                                  \
        fail_foreign_begin();                                                                      \
        int result = __real_##name arguments;                                                      \
        fail_foreign_end();                                                                        \
        return result;                                                                             \
    }

extern const char __ehdr_start[] __attribute__((visibility("hidden"))); /* the linker's */
extern const char _end[] __attribute__((visibility("hidden")));

static __attribute__((constructor)) void tell_place(void)
{
    fail_module(__ehdr_start, _end);
}

WRAP_MPI(MPI_Allgather,
         (const void *from, int count, MPI_Datatype type, void *to, int to_count,
          MPI_Datatype to_type, MPI_Comm comm),
         (from, count, type, to, to_count, to_type, comm))
WRAP_MPI(MPI_Allreduce,
         (const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
         (from, to, count, type, op, comm))
WRAP_MPI(MPI_Alltoall,
         (const void *from, int count, MPI_Datatype type, void *to, int to_count,
          MPI_Datatype to_type, MPI_Comm comm),
         (from, count, type, to, to_count, to_type, comm))
WRAP_MPI(MPI_Bcast, (void *data, int count, MPI_Datatype type, int root, MPI_Comm comm),
         (data, count, type, root, comm))
WRAP_MPI(MPI_Comm_dup, (MPI_Comm comm, MPI_Comm *copy), (comm, copy))
WRAP_MPI(MPI_Comm_free, (MPI_Comm * comm), (comm))
WRAP_MPI(MPI_Comm_rank, (MPI_Comm comm, int *rank), (comm, rank))
WRAP_MPI(MPI_Comm_set_errhandler, (MPI_Comm comm, MPI_Errhandler handler), (comm, handler))
WRAP_MPI(MPI_Comm_size, (MPI_Comm comm, int *size), (comm, size))
WRAP_MPI(MPI_Comm_split, (MPI_Comm comm, int color, int key, MPI_Comm *part),
         (comm, color, key, part))
WRAP_MPI(MPI_Error_string, (int code, char *text, int *length), (code, text, length))
WRAP_MPI(MPI_Finalize, (void), ())
WRAP_MPI(MPI_Finalized, (int *flag), (flag))
WRAP_MPI(MPI_Get_library_version, (char *text, int *length), (text, length))
WRAP_MPI(MPI_Init_thread, (int *argc, char ***argv, int required, int *provided),
         (argc, argv, required, provided))
WRAP_MPI(MPI_Initialized, (int *flag), (flag))
WRAP_MPI(MPI_Irecv,
         (void *data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
          MPI_Request *request),
         (data, count, type, peer, tag, comm, request))
WRAP_MPI(MPI_Isend,
         (const void *data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
          MPI_Request *request),
         (data, count, type, peer, tag, comm, request))
WRAP_MPI(MPI_Op_create, (MPI_User_function * function, int commutes, MPI_Op *op),
         (function, commutes, op))
WRAP_MPI(MPI_Op_free, (MPI_Op * op), (op))
WRAP_MPI(MPI_Query_thread, (int *provided), (provided))
WRAP_MPI(MPI_Recv,
         (void *data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
          MPI_Status *status),
         (data, count, type, peer, tag, comm, status))
WRAP_MPI(MPI_Reduce,
         (const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, int root,
          MPI_Comm comm),
         (from, to, count, type, op, root, comm))
WRAP_MPI(MPI_Reduce_scatter_block,
         (const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
         (from, to, count, type, op, comm))
WRAP_MPI(MPI_Send,
         (const void *data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm),
         (data, count, type, peer, tag, comm))
WRAP_MPI(MPI_Type_commit, (MPI_Datatype * type), (type))
WRAP_MPI(MPI_Type_contiguous, (int count, MPI_Datatype type, MPI_Datatype *made),
         (count, type, made))
WRAP_MPI(MPI_Type_create_struct,
         (int count, const int lengths[], const MPI_Aint places[], const MPI_Datatype types[],
          MPI_Datatype *made),
         (count, lengths, places, types, made))
WRAP_MPI(MPI_Type_free, (MPI_Datatype * type), (type))
WRAP_MPI(MPI_Wait, (MPI_Request * request, MPI_Status *status), (request, status))
