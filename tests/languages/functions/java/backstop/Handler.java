package backstop;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.lang.reflect.Field;
import java.util.Map;
import sun.misc.Unsafe;

/** The function of the language tests, in Java: what it does with an event, the event's `do` says. */
public final class Handler implements RequestHandler<Map<String, Object>, Map<String, Object>> {
    static {
        if (System.getenv("FAIL_INIT") != null) throw new IllegalStateException("TABLE_NAME is not set");
    }

    /** What the tests look for as the error's type. */
    public static final class PaymentDeclined extends RuntimeException {
        PaymentDeclined(String message) {
            super(message);
        }
    }

    @Override
    public Map<String, Object> handleRequest(Map<String, Object> event, Context context) {
        String what = (String) event.get("do");
        System.out.println("{\"requestId\": \"" + context.getAwsRequestId() + "\", \"message\": \"asked to " + what + "\"}");
        switch (what) {
            case "throw" -> charge((String) event.get("message"));
            case "hang" -> sleep();
            case "exit" -> Runtime.getRuntime().halt(3);
            case "panic" -> throw new InternalError("the payment library gave up"); // an error of the virtual machine: fatal
            case "crash" -> unsafe().putAddress(0, 0);
            case "memory" -> takeAllMemory();
            default -> { }
        }
        return Map.of("text", event.get("text"));
    }

    private static void charge(String message) {
        throw new PaymentDeclined(message);
    }

    private static void sleep() {
        try {
            Thread.sleep(900_000);
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    /** Outside the heap, whose own limit would be an OutOfMemoryError. */
    private static void takeAllMemory() {
        while (true) unsafe().setMemory(unsafe().allocateMemory(4 << 20), 4 << 20, (byte) 1);
    }

    private static Unsafe unsafe() {
        try {
            Field field = Unsafe.class.getDeclaredField("theUnsafe");
            field.setAccessible(true);
            return (Unsafe) field.get(null);
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
    }
}
